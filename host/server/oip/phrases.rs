//! Phrases of Triton's messages that programs look for. They are added to the host's own messages,
//! which say more.

use crate::error::{Error, Kind};
use crate::predict::walk::shown;
use crate::predict::{Datatype, element_count};
use bytes::Bytes;

/// Adds to an error for an unknown name how clients of the protocol recognize it.
pub(in crate::server) fn unknown_model(error: Error, model: &str, version: Option<&str>) -> Error {
    if error.kind() != Kind::NotFound {
        return error;
    }
    let model = shown(model);
    match version {
        // Versions are numbers in Triton, for which those clients were written.
        Some(version) if !version.bytes().all(|byte| byte.is_ascii_digit()) => {
            let shown: String = version.chars().take(64).collect();
            error.context(format_args!(
                "Request for unknown model: failed to get model version from specified version string '{shown}'"
            ))
        }
        Some(version) => {
            let version = shown(version);
            error.context(format_args!("Request for unknown model: '{model}' version {version} is not found"))
        }
        None => error.context(format_args!("Request for unknown model: '{model}' is not found")),
    }
}

/// The input of a request, for messages about its data.
#[derive(Clone, Copy)]
pub(in crate::server) struct InputOf<'a> {
    pub model: &'a str,
    pub name: &'a str,
    pub datatype: Datatype,
    pub shape: &'a [i64],
}

impl InputOf<'_> {
    /// Returns what `wrong_data` needs to know of these data.
    pub fn facts(datatype: Datatype, data: &Bytes) -> DataFacts {
        let texts = datatype.size().is_none().then(|| data.clone());
        DataFacts { bytes: data.len(), texts }
    }

    /// Adds to an error for data in the form of a tensor, if they do not fit the shape, how.
    pub fn wrong_data(self, error: Error, data: &DataFacts) -> Error {
        match self.datatype.size() {
            Some(size) => self.wrong_size(error, size, data.bytes),
            None => match count_texts(data.texts.as_deref().unwrap_or_default()) {
                Ok(count) => self.wrong_count(error, count),
                Err(Incomplete { wanted: None, left }) => self.add(
                    error,
                    format_args!(
                        "incomplete string length indicator for inference input '{}' for model '{}', expecting 4 bytes \
                         but only {left} bytes available",
                        shown(self.name),
                        self.model
                    ),
                ),
                Err(Incomplete { wanted: Some(wanted), left }) => self.add(
                    error,
                    format_args!(
                        "incomplete string data for inference input '{}' for model '{}', expecting string of length \
                         {wanted} but only {left} bytes available",
                        shown(self.name),
                        self.model
                    ),
                ),
            },
        }
    }

    /// Adds the same to an error for this many elements.
    pub fn wrong_elements(self, error: Error, count: usize) -> Error {
        match self.datatype.size() {
            Some(size) => self.wrong_size(error, size, count.saturating_mul(size)),
            None => self.wrong_count(error, count),
        }
    }

    fn wrong_size(self, error: Error, element_bytes: usize, got: usize) -> Error {
        let expected = element_count(self.shape).ok().and_then(|count| count.checked_mul(element_bytes));
        match expected.filter(|&expected| expected != got) {
            Some(expected) => self.add(
                error,
                format_args!(
                    "input byte size mismatch for input '{}' for model '{}'. Expected {expected}, got {got}",
                    shown(self.name),
                    self.model
                ),
            ),
            None => error,
        }
    }

    fn wrong_count(self, error: Error, got: usize) -> Error {
        let (name, model) = (shown(self.name), self.model);
        match element_count(self.shape) {
            Ok(expected) if got < expected => self.add(
                error,
                format_args!(
                    "expected {expected} string elements for inference input '{name}' for model '{model}', got {got}"
                ),
            ),
            Ok(expected) if got > expected => self.add(
                error,
                format_args!(
                    "unexpected number of string elements {got} for inference input '{name}' for model '{model}', \
                     expecting {expected}"
                ),
            ),
            _ => error,
        }
    }

    /// Returns an error for data that are not there.
    pub fn no_data(self, message: impl std::fmt::Display) -> Error {
        let name = shown(self.name);
        self.add(
            Error::invalid(message.to_string()),
            format_args!(
                "unable to find data for input tensor '{name}' for model '{}' in request.",
                self.model
            ),
        )
    }

    /// Appends a phrase to a message.
    pub fn add(self, error: Error, phrase: impl std::fmt::Display) -> Error {
        Error::new(error.kind(), format!("{}: {phrase}", error.message())).field(self.name)
    }
}

/// What messages say about the data of an input. Only BYTES are kept, so that others cost nothing.
pub(in crate::server) struct DataFacts {
    bytes: usize,
    texts: Option<Bytes>,
}

/// Where BYTES end in the middle of an element.
struct Incomplete {
    /// The declared length of the element; `None` if the length itself is incomplete.
    wanted: Option<u32>,
    left: usize,
}

/// Returns the number of elements of BYTES.
fn count_texts(data: &[u8]) -> Result<usize, Incomplete> {
    let mut rest = data;
    let mut count = 0;
    while !rest.is_empty() {
        let Some((length, tail)) = rest.split_first_chunk::<4>() else {
            return Err(Incomplete { wanted: None, left: rest.len() });
        };
        let wanted = u32::from_le_bytes(*length);
        rest = tail.get(wanted as usize..).ok_or(Incomplete { wanted: Some(wanted), left: tail.len() })?;
        count += 1;
    }
    Ok(count)
}
