//! The characters that the model knows: the asset `alphabet`. A character's index is its token.

use hostler_plugin::{Error, assets};

pub struct Alphabet(Vec<char>);

impl Alphabet {
    /// Reads the asset. An invalid asset is the operator's fault.
    pub fn read() -> Result<Self, Error> {
        let text = String::from_utf8(assets::read("alphabet")?)
            .map_err(|error| Error::failed(format!("asset \"alphabet\": not a text in UTF-8: {error}")))?;
        let letters: Vec<char> = text.chars().collect();
        if letters.first() != Some(&'\n') {
            return Err(Error::failed(
                "asset \"alphabet\": expected a line break first; make.py writes both it and the model",
            ));
        }
        Ok(Alphabet(letters))
    }

    pub fn letter(&self, token: i64) -> Option<char> {
        self.0.get(usize::try_from(token).ok()?).copied()
    }

    /// Returns the token of a letter in upper or lower case. `place` is its index in the prompt.
    pub fn token(&self, place: usize, letter: char) -> Result<i64, Error> {
        let known = self.0.iter().position(|known| *known == letter.to_ascii_lowercase());
        known.filter(|token| *token > 0).map(|token| token as i64).ok_or_else(|| {
            let known: String = self.0.iter().skip(1).collect();
            let message =
                format!("character {place}, {letter:?}, is none that the model knows; it knows \"{known}\"");
            Error::invalid("prompt", message)
        })
    }
}
