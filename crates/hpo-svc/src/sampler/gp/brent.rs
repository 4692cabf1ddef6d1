//! Brent's minimisation of a function of one variable.
//!
//! Brent, "Algorithms for minimization without derivatives" (1973), chapter 5: parabolas where they work, golden sections
//! elsewhere. Rules and constants are those of SciPy's `minimize_scalar(method="brent")`.

/// The smaller part of a golden section.
const GOLDEN: f64 = 0.381_966_0;
/// Two points closer than this are one.
const LEAST: f64 = 1e-11;
const ITERATIONS: usize = 500;

/// Where the function is smallest between the outer two of three points, as found from the middle one, to a relative tolerance.
pub(super) fn minimize(mut function: impl FnMut(f64) -> f64, bracket: (f64, f64, f64), tolerance: f64) -> f64 {
    let (mut a, mut x, mut b) = bracket;
    // The second and the third best point.
    let (mut w, mut v) = (x, x);
    let mut fx = function(x);
    let (mut fw, mut fv) = (fx, fx);
    let (mut step, mut before): (f64, f64) = (0.0, 0.0);
    for _ in 0..ITERATIONS {
        let near = tolerance * x.abs() + LEAST;
        let middle = f64::midpoint(a, b);
        if (x - middle).abs() < 2.0 * near - 0.5 * (b - a) {
            break;
        }
        let mut golden = before.abs() <= near;
        if !golden {
            // The lowest point of the parabola through the three best.
            let (left, right) = ((x - w) * (fx - fv), (x - v) * (fx - fw));
            let mut p = (x - v) * right - (x - w) * left;
            let mut q = 2.0 * (right - left);
            if q > 0.0 {
                p = -p;
            }
            q = q.abs();
            let last = std::mem::replace(&mut before, step);
            if p > q * (a - x) && p < q * (b - x) && p.abs() < (0.5 * q * last).abs() {
                step = p / q;
                let u = x + step;
                if u - a < 2.0 * near || b - u < 2.0 * near {
                    step = if middle >= x { near } else { -near };
                }
            } else {
                golden = true;
            }
        }
        if golden {
            before = if x >= middle { a - x } else { b - x };
            step = GOLDEN * before;
        }
        let u = if step.abs() >= near { x + step } else { x + near.copysign(step) };
        let fu = function(u);
        if fu > fx {
            if u < x {
                a = u;
            } else {
                b = u;
            }
            if fu <= fw || w == x {
                (v, fv, w, fw) = (w, fw, u, fu);
            } else if fu <= fv || v == x || v == w {
                (v, fv) = (u, fu);
            }
        } else {
            if u >= x {
                a = x;
            } else {
                b = x;
            }
            (v, fv, w, fw, x, fx) = (w, fw, x, fx, u, fu);
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_and_broken_functions_are_minimised() {
        let mut count = 0;
        let smooth = minimize(
            |x| {
                count += 1;
                (x - 0.3).powi(2) + 0.1 * (x - 0.3).powi(4)
            },
            (0.0, 0.9, 1.0),
            1e-8,
        );
        assert!((smooth - 0.3).abs() < 1e-6 && count < 40, "{smooth} {count}");
        let broken = minimize(|x| (x - 0.7).abs(), (0.0, 0.1, 1.0), 1e-6);
        assert!((broken - 0.7).abs() < 1e-4, "{broken}");
        let walls = |x: f64| if (0.0..=1.0).contains(&x) { -x } else { f64::INFINITY };
        assert!(minimize(walls, (-1e-12, 0.2, 1.0 + 1e-12), 1e-4) > 0.99);
        assert!((0.0..=1.0).contains(&minimize(|_| f64::NAN, (0.0, 0.5, 1.0), 1e-4)));
    }
}
