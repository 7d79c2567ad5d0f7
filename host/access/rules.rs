//! The rules: which callers may do what with which models.

use super::names::{ANONYMOUS, AUTHENTICATED, EVERYONE, ModelPattern, NamePattern};
use super::verb::Verb;
use smallvec::SmallVec;
use std::sync::Arc;

/// One rule. It allows something, and forbids nothing.
#[derive(Debug)]
pub(super) struct Rule {
    pub who: Vec<Who>,
    /// One bit for each verb.
    pub verbs: u8,
    pub models: Vec<ModelPattern>,
}

#[derive(Debug)]
pub(super) enum Who {
    Everyone,
    Anonymous,
    Authenticated,
    Named(NamePattern),
}

impl Who {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(match text {
            EVERYONE => Who::Everyone,
            ANONYMOUS => Who::Anonymous,
            AUTHENTICATED => Who::Authenticated,
            _ => Who::Named(NamePattern::parse(text)?),
        })
    }

    fn is(&self, names: &[Arc<str>], is_plugin: bool) -> bool {
        match self {
            // A rule for callers says nothing about what plugins call.
            Who::Everyone => !is_plugin,
            Who::Anonymous => names.is_empty() && !is_plugin,
            Who::Authenticated => !names.is_empty() && !is_plugin,
            Who::Named(pattern) => names.iter().any(|name| pattern.matches(name)),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Rules(pub Vec<Rule>);

impl Rules {
    /// Returns the indexes of the rules that mention a caller with these names.
    pub fn of(&self, names: &[Arc<str>], is_plugin: bool) -> SmallVec<[u16; 4]> {
        let rules = self.0.iter().enumerate();
        let own = rules.filter(|(_, rule)| rule.who.iter().any(|who| who.is(names, is_plugin)));
        own.filter_map(|(index, _)| u16::try_from(index).ok()).collect()
    }

    /// Whether one of these rules allows the verb on the model, or on any model if none is named.
    pub fn allow(&self, own: &[u16], verb: Verb, model: Option<(&str, Option<&str>)>) -> bool {
        own.iter().filter_map(|index| self.0.get(usize::from(*index))).any(|rule| {
            let is_meant = |(name, version)| rule.models.iter().any(|model| model.matches(name, version));
            rule.verbs & verb.bit() != 0 && model.is_none_or(is_meant)
        })
    }
}
