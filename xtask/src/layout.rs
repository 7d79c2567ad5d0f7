//! Paths: the repository, the cache of downloads, cargo's target folder, the plugins.
//! Creates nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::command::output;
use crate::error::{Error, Result};

pub struct Layout {
    /// The repository's root. Commands run there, so that the paths they print are relative to it.
    pub root: PathBuf,
    /// The folder for downloads that outlive a clone, by name and version.
    pub cache: PathBuf,
    target: OnceLock<PathBuf>,
}

impl Layout {
    pub fn locate() -> Result<Layout> {
        // `cargo run` sets the variable. The compiled-in value is for a binary that is started
        // manually.
        let xtask =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&xtask).parent().map(Path::to_path_buf);
        let root = root.filter(|root| root.join("xtask/Cargo.toml").is_file());
        let root = root.ok_or_else(|| {
            Error::new(
                format!("cannot find the repository: \"{}\" is not the folder of xtask", xtask.display()),
                "run `cargo xtask` inside the repository",
            )
        })?;
        Ok(Layout { root, cache: cache()?, target: OnceLock::new() })
    }

    /// Returns a command for the cargo that started this program, in the repository's root.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        // Cargo set these variables for this program only. The build scripts of dependencies read
        // some of them, so builds with and without them would replace each other's output.
        let is_own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_str().is_some_and(is_own)) {
            cargo.env_remove(name);
        }
        cargo
    }

    /// Returns cargo's target folder, wherever the environment or a configuration file puts it.
    pub fn target(&self) -> Result<&Path> {
        if let Some(target) = self.target.get() {
            return Ok(target);
        }
        let metadata =
            output(self.cargo().args(["metadata", "--locked", "--no-deps", "--format-version=1"]), "")?;
        let target = json_string(&metadata, "target_directory")
            .ok_or_else(|| Error::new("`cargo metadata` printed no target_directory", ""))?;
        Ok(self.target.get_or_init(|| target.into()))
    }

    /// Returns the path where manifests expect a built plugin.
    pub fn plugin_output(&self, name: &str) -> PathBuf {
        self.root.join("plugins/bin").join(format!("{name}.wasm"))
    }

    /// Displays `path` relative to the root, or unchanged if it is outside.
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
            Error::new(
                "cannot choose a cache folder: neither HOSTLER_CACHE nor HOME is set",
                "set HOSTLER_CACHE",
            )
        })?;
    std::path::absolute(&cache)
        .map_err(|cause| Error::new(format!("cannot use the cache folder {}: {cause}", cache.display()), ""))
}

/// Returns the string value of `key` in compact JSON, unescaped as far as paths need it.
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
