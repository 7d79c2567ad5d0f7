//! The words of the code: the glossary's terms, not private ones.

use super::sources::host;

/// Names that were replaced by standard terms (`docs/glossary.md`), as types, functions, fields or
/// modules.
const REPLACED: [&str; 62] = [
    "Anatomy",
    "Ask",
    "Asked",
    "Back",
    "Bell",
    "Below",
    "Deed",
    "Desk",
    "Ear",
    "Grant",
    "Ground",
    "Habit",
    "Handed",
    "Helm",
    "Home",
    "Journey",
    "Keeper",
    "Lent",
    "Life",
    "Misdeed",
    "Numbers",
    "Picked",
    "Place",
    "Places",
    "Room",
    "Standing",
    "Tally",
    "Terms",
    "Twin",
    "Undrained",
    "Visit",
    "Wheel",
    "accuse",
    "alarm",
    "anatomy",
    "bells",
    "come_back",
    "deed",
    "desk",
    "dismiss",
    "ear",
    "go_home",
    "grant",
    "habit",
    "helm",
    "helms",
    "journey",
    "leavers",
    "lent",
    "lot",
    "mourn",
    "room",
    "seat",
    "sends_home",
    "standing",
    "stranded",
    "tally",
    "told",
    "turns",
    "twin",
    "undrained",
    "wheel",
];

#[test]
fn the_code_uses_the_terms_of_the_glossary() {
    let mut faults = Vec::new();
    for source in host() {
        let code = source.code();
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let mut found: Vec<&str> = words.filter(|word| REPLACED.contains(word)).collect();
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() {
            faults.push(format!("{}: {found:?}", source.path));
        }
        let names = source.path.split(['/', '.']).filter(|part| REPLACED.contains(part));
        faults.extend(names.map(|name| format!("{}: a file named {name}", source.path)));
    }
    assert_eq!(faults, Vec::<String>::new(), "see docs/glossary.md for the term");
}

/// An `expect` says which invariant makes it impossible to fail.
#[test]
fn expectations_name_an_invariant() {
    let mut faults = Vec::new();
    for source in host() {
        // Strings are needed here, so this looks at lines; tests stand at the end of a file.
        let text = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = source.path.ends_with("tests.rs");
        for (number, line) in text.lines().enumerate().filter(|_| !is_test) {
            let message = line.split(".expect(\"").nth(1).or_else(|| line.split(".expect_err(\"").nth(1));
            // Parsers have a method of this name, for a sign that must follow.
            if message.is_some_and(|message| message.len() > 6 && !message.starts_with("invariant: ")) {
                faults.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}
