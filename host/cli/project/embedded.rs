//! The files that this program carries, so that a project needs nothing but the program: the SDKs
//! of its own version, the contract, and the templates of projects.

/// A file below one of the embedded folders.
#[derive(Clone, Copy)]
pub(super) struct EmbeddedFile {
    /// Relative to `sdk/`, with `/`.
    path: &'static str,
    pub content: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The contract, relative to the folder `wit`.
const CONTRACT: [(&str, &str); 4] = [
    ("hostler.wit", include_str!("../../../wit/hostler.wit")),
    ("async/concurrent.wit", include_str!("../../../wit/async/concurrent.wit")),
    ("deps/logging/logging.wit", include_str!("../../../wit/deps/logging/logging.wit")),
    ("deps/config/store.wit", include_str!("../../../wit/deps/config/store.wit")),
];

/// Returns the files of a folder of `sdk/`, with their paths relative to it.
pub(super) fn folder(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    FILES.iter().filter_map(move |file| {
        let path = file.path.strip_prefix(folder)?.strip_prefix('/')?;
        Some((path, file.content))
    })
}

/// Returns the files of the contract.
pub(super) fn contract() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    CONTRACT.into_iter().map(|(path, text)| (path, text.as_bytes()))
}
