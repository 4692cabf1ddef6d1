//! An error as a cell of a table: one line in which what went wrong can be seen.

/// Folders of a path from which on only its last part is told.
const FOLDERS: usize = 3;

/// The first line, in at most `room` characters: when it is longer, paths lose their folders, and then the line its middle. A terminal
/// gets no orders.
pub(super) fn brief(error: &str, room: usize) -> String {
    let line: String = error.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if line.chars().count() <= room {
        return line;
    }
    let shorter = line.split(' ').map(last_part).collect::<Vec<_>>().join(" ");
    let chars: Vec<char> = shorter.chars().collect();
    if chars.len() <= room {
        return shorter;
    }
    let kept = room.saturating_sub(1);
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
}

/// A long path without its folders: of a job's working folder, these are the same for every trial and tell nothing.
fn last_part(word: &str) -> String {
    let path = word.trim_start_matches(['"', '\'', '`', '(']);
    let end = path.trim_end_matches(['"', '\'', '`', ')', ':', ',', ';', '/']);
    match end.rfind('/') {
        Some(at) if path.starts_with('/') && end.matches('/').count() > FOLDERS => {
            format!("{}…{}", &word[..word.len() - path.len()], &path[at..])
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_orders() {
        assert_eq!(brief("\u{1b}[2Jfailed\rso\nmore", 40), "[2Jfailedso");
    }

    #[test]
    fn what_is_wrong_is_seen_whatever_stands_before_it() {
        let folder = "/srv/quintet/jobs/be315cb6115e2e86bdf87d41596ccdc4/attempt-1/run";
        let error = |problem: &str| format!("BAD_INPUT: metrics file {folder}/m.json: {problem}\nits log");
        for (problem, expected) in [
            (
                "\"loss\" is \"abc\", not a number",
                "BAD_INPUT: metrics file …/m.json: \"loss\" is \"abc\", not a number",
            ),
            ("No such file (os error 2)", "BAD_INPUT: metrics file …/m.json: No such file (os error 2)"),
        ] {
            assert_eq!(brief(&error(problem), 80), expected);
        }
        let whole = error("x");
        assert_eq!(brief(&whole, 400), whole.lines().next().unwrap(), "there is room for everything");
        let cut = brief(&error(&format!("is no JSON object: {} at line 7", "long ".repeat(40))), 80);
        assert!(cut.starts_with("BAD_INPUT: metrics file …/m.json: ") && cut.ends_with(" at line 7"), "{cut}");
        assert!(cut.chars().count() == 80 && cut.matches('…').count() == 2, "{cut}");
    }

    #[test]
    fn only_long_paths_lose_their_folders() {
        for (word, short) in [
            ("/a/b/c/d.json:", "…/d.json:"),
            ("\"/a/b/c/d/\",", "\"…/d/\","),
            ("`/a/b/c/folder/", "`…/folder/"),
            ("/in/train.csv", "/in/train.csv"),
            ("a/b/c/d/e", "a/b/c/d/e"),
            ("http://a/b/c/d/e", "http://a/b/c/d/e"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(last_part(word), short, "{word}");
        }
        assert_eq!(brief("", 80), "");
        assert_eq!(brief("äöü", 1), "…");
    }
}
