//! Where things are: the repository, the cache of downloads, cargo's target folder, the plugins.
//! Creates nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::command::output;
use crate::error::{Error, Result};

pub struct Layout {
    /// The repository's root; commands run there, so that what they print is relative to it.
    pub root: PathBuf,
    /// Downloads that outlive a clone, by name and version.
    pub cache: PathBuf,
    target: OnceLock<PathBuf>,
}

impl Layout {
    pub fn locate() -> Result<Layout> {
        // Set by `cargo run`; the compiled-in value serves a binary that is started by hand.
        let xtask =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&xtask).parent().map(Path::to_path_buf);
        let root = root.filter(|root| root.join("xtask/Cargo.toml").is_file());
        let root = root.ok_or_else(|| {
            Error::new(
                format!("find the repository of {xtask:?}"),
                "start it as `cargo xtask` inside the repository",
            )
        })?;
        Ok(Layout { root, cache: cache()?, target: OnceLock::new() })
    }

    /// Cargo in the repository's root, the same one that started this.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        // Set for this program only. A build script of a dependency looks at it, so that what is built with it and
        // what is built without would replace each other.
        cargo.env_remove("CARGO_MANIFEST_DIR");
        cargo
    }

    /// Cargo's target folder, wherever the environment or a configuration file put it.
    pub fn target(&self) -> Result<&Path> {
        if let Some(target) = self.target.get() {
            return Ok(target);
        }
        let metadata = output(self.cargo().args(["metadata", "--no-deps", "--format-version=1"]), "")?;
        let target = json_string(&metadata, "target_directory")
            .ok_or_else(|| Error::new("`cargo metadata`: no target_directory in its answer", ""))?;
        Ok(self.target.get_or_init(|| target.into()))
    }

    /// Where manifests look for a built plugin.
    pub fn plugin_output(&self, name: &str) -> PathBuf {
        self.root.join("plugins/bin").join(format!("{name}.wasm"))
    }

    /// `path` as a person in the root would type it.
    pub fn relative<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

fn cache() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("HOSTLER_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("hostler")))
        .or_else(|| Some(variable("HOME")?.join(".cache/hostler")))
        .ok_or_else(|| {
            Error::new("choose a cache folder: neither HOSTLER_CACHE nor HOME is set", "set HOSTLER_CACHE")
        })?;
    std::path::absolute(&cache)
        .map_err(|cause| Error::new(format!("cache folder {}: {cause}", cache.display()), ""))
}

/// The string behind `"key":` in compact JSON, with its escapes undone as far as paths need it.
fn json_string(json: &str, key: &str) -> Option<String> {
    let marker = format!("\"{key}\":\"");
    let mut chars = json[json.find(&marker)? + marker.len()..].chars();
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(chars.next()?),
            char => value.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::json_string;

    #[test]
    fn json_string_undoes_escapes_and_misses_quietly() {
        let json = r#"{"a":"x","target_directory":"/a \"b\"\\c","z":1}"#;
        assert_eq!(json_string(json, "target_directory").as_deref(), Some(r#"/a "b"\c"#));
        assert_eq!(json_string(json, "other"), None);
        assert_eq!(json_string(r#"{"a":"x"#, "a"), None);
    }
}
