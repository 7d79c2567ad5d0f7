//! Folders that the host creates for itself inside folders that users name, and that only its user
//! can write to.
//!
//! A [`PrivateFolder`] is kept. What the host reads back from it decides what the host runs:
//! compiled code, a manifest. So a folder that is a symbolic link, or that another user owns or can
//! write to, is refused. All access goes through the open folder, so replacing the path afterwards
//! has no effect.
//!
//! A [`TemporaryFolder`] is removed when its value is dropped.

mod access;
mod private;
mod temporary;

pub use private::PrivateFolder;
pub use temporary::TemporaryFolder;
