//! What a plugin is for, as `hostler new` names it.

use crate::error::{Error, Result, did_you_mean};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectRole {
    Transformer,
    Model,
    Executor,
    StreamingModel,
}

impl ProjectRole {
    pub const ALL: [ProjectRole; 4] =
        [ProjectRole::Transformer, ProjectRole::Model, ProjectRole::Executor, ProjectRole::StreamingModel];

    pub fn as_str(self) -> &'static str {
        match self {
            ProjectRole::Transformer => "transformer",
            ProjectRole::Model => "model",
            ProjectRole::Executor => "executor",
            ProjectRole::StreamingModel => "streaming-model",
        }
    }

    /// # Errors
    /// `invalid` with the roles that there are.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(ProjectRole::as_str);
            let hint = did_you_mean(text, names);
            Error::invalid(format!("no role \"{text}\"{hint}; roles: {}", names.join(", ")))
        })
    }
}
