//! `hostler new`: a project that builds, tests and serves a first plugin.

use super::embedded;
use super::language::Language;
use super::role::ProjectRole;
use super::sdk::sdk_files;
use super::written::{NewFiles, write};
use crate::error::{Error, Result};
use crate::output;
use std::path::{Path, PathBuf};

/// The longest name of a project.
const NAME_MAX: usize = 64;

/// `hostler new LANGUAGE ROLE [FOLDER]`: creates the folder, which is named after the role if none
/// is given. The project is named after the folder.
pub fn new(language: &str, role: &str, folder: Option<&Path>, force: bool) -> Result<bool> {
    let (language, role) = (Language::parse(language)?, ProjectRole::parse(role)?);
    language.check(role)?;
    let default = PathBuf::from(format!("my-{}", role.as_str()));
    let folder = folder.unwrap_or(&default);
    let name = project_name(folder)?;
    let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty && !force {
        return Err(Error::invalid(format!(
            "cannot create a project in {}: it is not an empty folder; name another one, or add the missing files with \
             --force, which overwrites those with the same names",
            folder.display()
        )));
    }
    write(folder, &project_files(language, role, &name), force, false)?;
    let shown = folder.display();
    output::print(format_args!("created {shown}: a {} in {}", role.as_str(), language.as_str()));
    output::print(format_args!("  cd {shown}"));
    output::print("  hostler build      # the component; the first build fetches the tools of the language");
    output::print("  hostler test       # the cases of cases.json, without a server");
    output::print("  hostler dev        # serves, and builds and reloads whenever a file is saved");
    Ok(true)
}

/// Returns the name of a project in this folder: lower-case letters, digits and hyphens.
fn project_name(folder: &Path) -> Result<String> {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= NAME_MAX
        && name.chars().all(is_allowed)
        && !name.ends_with('-');
    if is_name {
        return Ok(name);
    }
    Err(Error::invalid(format!(
        "cannot name a project \"{name}\" after its folder: a name has up to {NAME_MAX} lower-case letters, digits and \
         hyphens, and begins with a letter; name the folder like that"
    )))
}

/// Returns all files of a project: those of its template, and the SDK.
pub(super) fn project_files(language: Language, role: ProjectRole, name: &str) -> NewFiles {
    let mut files = NewFiles::new();
    let common = "templates/common".to_owned();
    let of_language = format!("templates/{}/common", language.as_str());
    let of_role = format!("templates/{}/{}", language.as_str(), role.as_str());
    let shared_by_role = format!("templates/common-{}", role.as_str());
    for folder in [common, shared_by_role, of_language, of_role] {
        for (path, content) in embedded::folder(&folder) {
            // A file of that name would be taken for one of this repository.
            let path = match path {
                "gitignore" => ".gitignore",
                "Cargo.toml.in" => "Cargo.toml",
                other => other,
            };
            files.retain(|(known, _)| known != Path::new(path));
            files.push((path.into(), filled(content, language, role, name)));
        }
    }
    files.extend(sdk_files(language, Path::new("sdk")));
    files
}

/// Fills in the names of a template. Other bytes are left alone.
fn filled(content: &[u8], language: Language, role: ProjectRole, name: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(content) else { return content.to_vec() };
    text.replace("{{name}}", name)
        .replace("{{crate}}", &name.replace('-', "_"))
        .replace("{{role}}", role.as_str())
        .replace("{{language}}", language.as_str())
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_every_role_that_it_can() {
        for language in Language::ALL {
            for role in ProjectRole::ALL {
                if language.check(role).is_err() {
                    continue;
                }
                let files = project_files(language, role, "my-plugin");
                let has = |name: &str| files.iter().any(|(path, _)| path == Path::new(name));
                let what = format!("{} {}", language.as_str(), role.as_str());
                for name in
                    ["plugin.toml", "hostler.toml", "cases.json", "request.json", "README.md", ".gitignore"]
                {
                    assert!(has(name), "{what} lacks {name}");
                }
                assert!(has("sdk/wit/hostler.wit"), "{what} lacks the contract");
                let unfilled = files.iter().filter(|(path, _)| !path.starts_with("sdk"));
                for (path, content) in unfilled {
                    let text = String::from_utf8_lossy(content);
                    let unknown = text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
                    let mut unknown = unknown.map(|(name, _)| name);
                    let is_name = |name: &str| name.bytes().all(|letter| letter.is_ascii_lowercase());
                    assert!(!unknown.any(is_name), "{what}: {} has a placeholder", path.display());
                }
            }
        }
    }

    #[test]
    fn a_project_is_named_after_its_folder() {
        assert_eq!(project_name(Path::new("a/my-model2")).unwrap(), "my-model2");
        for bad in ["My", "2a", "a_b", "a b", "-a", "a-", "ä"] {
            let error = project_name(Path::new(bad)).unwrap_err().to_string();
            assert!(error.contains("lower-case letters"), "{bad}: {error}");
        }
    }
}
