//! Names for runs that were given none: an adjective, an animal and a number, as MLflow makes them.

const ADJECTIVES: &[&str] = &[
    "able", "agile", "amused", "bald", "bold", "brave", "bright", "calm", "clean", "clever", "crisp", "curious",
    "daring", "eager", "fast", "fine", "fun", "gentle", "glad", "grand", "handsome", "honest", "jolly", "keen", "kind",
    "lively", "loud", "lucky", "merry", "mild", "neat", "noble", "nimble", "patient", "polite", "proud", "quick",
    "quiet", "rare", "serious", "sharp", "smart", "steady", "swift", "tidy", "upbeat", "vivid", "warm", "wise",
    "zealous",
];

const ANIMALS: &[&str] = &[
    "ant", "auk", "badger", "bat", "bear", "bee", "bird", "bug", "calf", "cat", "chimp", "cod", "colt", "cow", "crab",
    "crane", "crow", "cub", "deer", "doe", "dog", "dove", "duck", "eel", "elk", "fawn", "finch", "fish", "fly", "fox",
    "frog", "goat", "gull", "hare", "hawk", "hen", "hog", "horse", "jay", "kit", "koi", "lamb", "lark", "loon", "lynx",
    "mare", "mink", "mole", "moth", "mouse", "newt", "owl", "panda", "pig", "pug", "quail", "ram", "rat", "ray",
    "seal", "shad", "shark", "sheep", "slug", "smelt", "snail", "snake", "stag", "stork", "swan", "toad", "trout",
    "vole", "wasp", "whale", "wolf", "worm", "wren", "yak", "zebra",
];

/// A fresh name such as `bold-owl-417`.
pub(crate) fn random() -> String {
    let pick = |list: &[&'static str]| list.get(rand::random_range(0..list.len())).copied().unwrap_or("run");
    format!("{}-{}-{}", pick(ADJECTIVES), pick(ANIMALS), rand::random_range(0..1000))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_have_three_parts() {
        for _ in 0..100 {
            let name = super::random();
            let parts: Vec<&str> = name.split('-').collect();
            assert!(parts.len() == 3 && parts[2].parse::<u16>().is_ok(), "{name}");
        }
    }
}
