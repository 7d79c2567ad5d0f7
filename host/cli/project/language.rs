//! The languages of projects.

use super::role::ProjectRole;
use crate::error::{Error, Result, did_you_mean};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Rust,
    Python,
    JavaScript,
    TypeScript,
    Go,
    C,
}

impl Language {
    pub const ALL: [Language; 6] = [
        Language::Rust,
        Language::Python,
        Language::JavaScript,
        Language::TypeScript,
        Language::Go,
        Language::C,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Python => "python",
            Language::JavaScript => "js",
            Language::TypeScript => "ts",
            Language::Go => "go",
            Language::C => "c",
        }
    }

    /// Returns the folder of the SDK. TypeScript shares that of JavaScript.
    pub fn sdk(self) -> &'static str {
        match self {
            Language::TypeScript => "js",
            _ => self.as_str(),
        }
    }

    /// # Errors
    /// `invalid` with the languages that there are.
    pub fn parse(text: &str) -> Result<Self> {
        let alias = match text {
            "py" => "python",
            "javascript" => "js",
            "typescript" => "ts",
            "rs" => "rust",
            "golang" => "go",
            other => other,
        };
        Self::ALL.into_iter().find(|language| language.as_str() == alias).ok_or_else(|| {
            let names = Self::ALL.map(Language::as_str);
            let hint = did_you_mean(text, names);
            Error::invalid(format!(
                "no language \"{text}\"{hint}; languages: {}. Plugins in other languages are built from the contract, which \
                 `hostler wit` writes",
                names.join(", ")
            ))
        })
    }

    /// # Errors
    /// `unsupported` if the tools of the language cannot build this role, with what to use instead.
    pub fn check(self, role: ProjectRole) -> Result<()> {
        if role == ProjectRole::StreamingModel
            && matches!(self, Language::JavaScript | Language::TypeScript | Language::Go | Language::C)
        {
            return Err(Error::unsupported(format!(
                "cannot create a streaming model in {}: its tools have no asynchronous components; write it in rust or \
                 python, or write a model, which has one response for each request",
                self.as_str()
            )));
        }
        Ok(())
    }
}
