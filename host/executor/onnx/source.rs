//! An ONNX model before it is loaded: its bytes, and the location of its external data.

use super::load_limit::LoadLimit;
use super::plain_message::plain;
use crate::error::{Error, Result};
use crate::private_folder::TemporaryFolder;
use bytes::Bytes;
use ort::session::builder::SessionBuilder;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// An ONNX model as it was read, before it is loaded.
pub struct OnnxSource {
    /// The path of the file, for messages. The file is not read again.
    pub path: PathBuf,
    pub bytes: Bytes,
    pub external: ExternalFiles,
    /// False if the host could not determine which external data the file refers to.
    pub is_readable: bool,
    /// The time limit for each session.
    pub limit: LoadLimit,
}

/// Where ONNX Runtime finds a model's external data. It looks nowhere else.
pub enum ExternalFiles {
    None,
    /// Copies under the names that the model uses. May be removed once the sessions exist.
    Folder(TemporaryFolder),
    Memory(Vec<(PathBuf, Arc<[u8]>)>),
}

impl ExternalFiles {
    /// A path that cannot exist. Without a folder, ONNX Runtime would look in the process's working
    /// folder.
    const NO_FOLDER: &str = "/dev/null/no-external-data";

    /// Configures a session to find these files and no others.
    pub(super) fn apply_to(&self, builder: SessionBuilder) -> Result<SessionBuilder> {
        let folder = match self {
            ExternalFiles::Folder(folder) => folder
                .path()
                .to_str()
                .ok_or_else(|| Error::unavailable(format!("{} is not UTF-8", folder.path().display())))?,
            ExternalFiles::None | ExternalFiles::Memory(_) => Self::NO_FOLDER,
        };
        let key = "session.model_external_initializers_file_folder_path";
        let mut builder = builder.with_config_entry(key, folder).map_err(load_error)?;
        if let ExternalFiles::Memory(files) = self {
            for (name, content) in files {
                let content = Arc::clone(content);
                builder =
                    builder.with_external_initializer_file_in_memory(name, content).map_err(load_error)?;
            }
        }
        Ok(builder)
    }
}

pub(super) fn load_error(error: impl fmt::Display) -> Error {
    let text = error.to_string();
    let refused = match missing_locale(&text) {
        Some(locale) => Error::unsupported(format!(
            "it processes texts in the locale \"{locale}\", which this system does not have; install it (Debian: \
             apt-get install locales && localedef -i {} -f UTF-8 {locale}) and reload, or export the model with one \
             that `locale -a` lists, such as \"C.UTF-8\"",
            locale.split('.').next().unwrap_or_default()
        )),
        None => Error::invalid(format!("ONNX Runtime cannot load it: {}", plain(&text))),
    };
    refused.with_detail(text)
}

/// Returns the locale that the system lacks, if a load failed for that reason. Operators on texts
/// need one, such as StringNormalizer.
fn missing_locale(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("Failed to construct locale with name:")?;
    let (locale, _) = rest.split_once(':')?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (!locale.is_empty() && locale.len() <= 64 && locale.bytes().all(is_name)).then_some(locale)
}
