//! The file of access rules as written, and its checks.

use super::keys::Keys;
use super::names::{ANONYMOUS, AUTHENTICATED, EVERYONE, KINDS, ModelPattern};
use super::rules::{Rule, Rules, Who};
use super::source::{parse, read};
use super::tokens::{Tokens, TokensTable};
use super::verb::Verb;
use crate::error::{Error, Result, did_you_mean};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The most rules. A caller refers to rules by 16 bits.
const RULES_MAX: usize = 10_000;

/// The most callers, and the most models, of a rule.
const NAMES_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    /// A file of API keys.
    keys: Option<PathBuf>,
    /// How JSON web tokens are checked.
    tokens: Option<TokensTable>,
    #[serde(default)]
    rules: Vec<RuleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    who: Vec<Spanned<String>>,
    verbs: Vec<Spanned<String>>,
    models: Option<Vec<Spanned<String>>>,
}

/// The contents of all files, and what they say.
pub(super) struct Loaded {
    pub rules: Rules,
    pub keys: Keys,
    pub tokens: Option<Tokens>,
}

/// The files as they were read.
pub(super) struct RulesFiles {
    path: PathBuf,
    text: String,
    keys: Option<(PathBuf, Result<String>)>,
    jwks: Option<(PathBuf, Result<String>)>,
}

/// Checks a file of rules and the files that it names.
pub fn check(path: &Path) -> Result<()> {
    RulesFiles::read(path)?.load().map(drop)
}

impl RulesFiles {
    /// Reads a file of rules and those that it names. Only the first must be there.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut files = RulesFiles { path: path.to_owned(), keys: None, jwks: None, text };
        if let Ok(file) = toml::from_str::<RulesFile>(&files.text) {
            let of = |path: PathBuf| {
                let path = folder.join(path);
                let content = read(&path);
                (path, content)
            };
            files.keys = file.keys.map(of);
            files.jwks = file.tokens.map(|tokens| of(tokens.jwks));
        }
        Ok(files)
    }

    /// Returns a digest of the contents, which tells whether something has changed.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let others = [&self.keys, &self.jwks].into_iter().flatten();
        let others = others.map(|(_, content)| match content {
            Ok(text) => text.clone(),
            Err(error) => error.message().to_owned(),
        });
        for part in std::iter::once(self.text.clone()).chain(others) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// Checks the files.
    pub fn load(&self) -> Result<Loaded> {
        let shown = self.path.display();
        let file: RulesFile = parse(&self.text)
            .map_err(|error| error.context(format!("the access rules {shown} cannot be read")))?;
        let fault = |place: &std::ops::Range<usize>, what: String| {
            let line = self.text.get(..place.start).unwrap_or_default().matches('\n').count() + 1;
            Error::invalid(format!("the access rules {shown}, line {line}: {what}"))
        };
        if file.rules.is_empty() {
            return Err(Error::invalid(format!(
                "the access rules {shown} have no rule, so nobody could do anything; write one, such as\n[[rules]]\n\
                 who = [\"authenticated\"]\nverbs = [\"predict\"]"
            ))
            .laid_out());
        }
        if file.rules.len() > RULES_MAX {
            return Err(Error::too_large(format!(
                "the access rules {shown} have {} rules; the most are {RULES_MAX}. Use groups, or names that end with *",
                file.rules.len()
            )));
        }
        let mut rules = Vec::with_capacity(file.rules.len());
        for table in &file.rules {
            rules.push(rule(table, &fault)?);
        }
        let content = |named: &Option<(PathBuf, Result<String>)>, what: &str| match named {
            None => Ok(None),
            Some((path, Ok(text))) => Ok(Some((path.clone(), text.clone()))),
            // The error names the file.
            Some((_, Err(error))) => Err(error.clone().context(format!("the {what}"))),
        };
        let keys = match content(&self.keys, "API keys")? {
            None => Keys::default(),
            Some((path, text)) => Keys::parse(&text)
                .map_err(|error| error.context(format!("the API keys {}", path.display())))?,
        };
        let tokens = match (file.tokens, content(&self.jwks, "keys of tokens")?) {
            (Some(table), Some((path, text))) => Some(
                Tokens::new(&table, &text)
                    .map_err(|error| error.context(format!("[tokens] of {shown} with {}", path.display())))?,
            ),
            _ => None,
        };
        Ok(Loaded { rules: Rules(rules), keys, tokens })
    }
}

fn rule(table: &RuleTable, fault: &dyn Fn(&std::ops::Range<usize>, String) -> Error) -> Result<Rule> {
    if table.who.len() > NAMES_MAX || table.models.as_ref().is_some_and(|models| models.len() > NAMES_MAX) {
        let place = table.who.first().map_or(0..0, Spanned::span);
        return Err(fault(
            &place,
            format!("a rule names more than {NAMES_MAX} callers or models; use groups or *"),
        ));
    }
    let mut who = Vec::new();
    for text in &table.who {
        let (name, place) = (text.get_ref(), text.span());
        let kind = name.split_once(':').map(|(kind, _)| kind);
        if ![EVERYONE, ANONYMOUS, AUTHENTICATED].contains(&name.as_str())
            && !kind.is_some_and(|kind| KINDS.contains(&kind))
        {
            let kinds = KINDS.map(|kind| format!("{kind}:NAME")).join(", ");
            return Err(fault(
                &place,
                format!(
                    "who has \"{name}\"; write {kinds}, \"{AUTHENTICATED}\", \"{ANONYMOUS}\" or \"{EVERYONE}\""
                ),
            ));
        }
        who.push(Who::parse(name).map_err(|why| fault(&place, format!("who has \"{name}\", which {why}")))?);
    }
    let mut verbs = 0;
    for text in &table.verbs {
        let verb = Verb::ALL.into_iter().find(|verb| verb.as_str() == text.get_ref());
        let verb = verb.ok_or_else(|| {
            let known = Verb::ALL.map(Verb::as_str);
            let hint = did_you_mean(text.get_ref(), known);
            fault(
                &text.span(),
                format!("the verb \"{}\" is not known{hint}; verbs: {}", text.get_ref(), known.join(", ")),
            )
        })?;
        verbs |= verb.bit();
    }
    let of_models = Verb::Predict.bit() | Verb::Jobs.bit() | Verb::Read.bit() | Verb::Load.bit();
    if let (Some(models), 1..) = (&table.models, verbs & !of_models) {
        let place = models.first().map_or(0..0, Spanned::span);
        return Err(fault(
            &place,
            "models does not apply to the verbs metrics and admin; put these verbs in a rule without models"
                .to_owned(),
        ));
    }
    let every = [Spanned::new(0..0, EVERYONE.to_owned())];
    let mut models = Vec::new();
    for text in table.models.as_deref().unwrap_or(&every) {
        let model = ModelPattern::parse(text.get_ref());
        if text.get_ref().contains(':') && verbs & Verb::Load.bit() != 0 {
            let model = text.get_ref();
            return Err(fault(
                &text.span(),
                format!(
                    "models has \"{model}\" in a rule with the verb load, which loads all versions; leave the version out"
                ),
            ));
        }
        models.push(
            model.map_err(|why| {
                fault(&text.span(), format!("models has \"{}\", which {why}", text.get_ref()))
            })?,
        );
    }
    Ok(Rule { who, verbs, models })
}
