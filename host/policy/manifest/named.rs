//! A table of the manifest whose keys are names.

use std::collections::BTreeMap;
use toml::Spanned;

pub(super) type Named<T> = BTreeMap<Spanned<String>, T>;
