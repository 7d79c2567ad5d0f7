//! `hostler wit`: the plugin contract.

use crate::error::{Error, Result};
use crate::output;
use std::path::Path;

/// `hostler wit FOLDER`: writes the plugin contract. Does not overwrite files with other content
/// unless `force` is set.
pub fn write_contract(folder: &Path, force: bool) -> Result<bool> {
    const FILES: [(&str, &str); 4] = [
        ("hostler.wit", include_str!("../../wit/hostler.wit")),
        ("async/concurrent.wit", include_str!("../../wit/async/concurrent.wit")),
        ("deps/logging/logging.wit", include_str!("../../wit/deps/logging/logging.wit")),
        ("deps/config/store.wit", include_str!("../../wit/deps/config/store.wit")),
    ];
    let mut unwritten = Vec::new();
    for (name, text) in FILES {
        let path = folder.join(name);
        match std::fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {}
            Ok(_) if !force => {
                let path = path.display();
                return Err(Error::invalid(format!(
                    "{path} exists and has other content; nothing was written: name another folder, or overwrite it \
                     with --force"
                )));
            }
            // If the path is not a writable file, the write below reports it.
            _ => unwritten.push(name),
        }
    }
    for (name, text) in FILES {
        let path = folder.join(name);
        if unwritten.contains(&name) {
            let parent = path.parent().expect("invariant: below the folder");
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|error| Error::unavailable(format!("cannot write {}: {error}", path.display())))?;
        }
        output::print(path.display());
    }
    Ok(true)
}
