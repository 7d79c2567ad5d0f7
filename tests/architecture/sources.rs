//! The Rust files of the repository, and the paths that their code names.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::path::Path;
use std::sync::OnceLock;

#[derive(Clone)]
pub struct Source {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub text: String,
}

/// One name that a `use` brings into scope.
pub struct Import {
    pub path: Vec<String>,
    pub name: String,
    pub is_public: bool,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the repository.
pub fn repository() -> Vec<Source> {
    static ALL: OnceLock<Vec<Source>> = OnceLock::new();
    let read = || {
        let mut found = Vec::new();
        for folder in ["host", "xtask", "bench", "sdk", "plugins", "examples", "tests"] {
            read_folder(&root().join(folder), &mut found);
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    };
    ALL.get_or_init(read).clone()
}

/// The files of the host.
pub fn host() -> Vec<Source> {
    repository().into_iter().filter(|source| source.path.starts_with("host/")).collect()
}

fn read_folder(folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "target" && name != "node_modules" {
                read_folder(&path, found);
            }
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path, text });
        }
    }
}

impl Source {
    fn tokens(&self) -> Vec<TokenTree> {
        let stream: TokenStream = self.text.parse().unwrap_or_else(|error| panic!("{}: {error}", self.path));
        without_tests(stream.into_iter().collect())
    }

    /// The code without comments, tests and the contents of strings, on one line.
    pub fn code(&self) -> String {
        fn write(tokens: Vec<TokenTree>, text: &mut String) {
            for token in tokens {
                match token {
                    TokenTree::Group(group) => write(group.stream().into_iter().collect(), text),
                    TokenTree::Literal(_) => text.push_str(" _ "),
                    TokenTree::Punct(punct) => text.push(punct.as_char()),
                    TokenTree::Ident(ident) => {
                        if text.ends_with(|last: char| last.is_alphanumeric() || last == '_') {
                            text.push(' ');
                        }
                        text.push_str(&ident.to_string());
                    }
                }
            }
        }
        let mut text = String::new();
        write(self.tokens(), &mut text);
        text
    }

    /// The module of a file of the host.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("host/").trim_end_matches(".rs");
        let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| last == "mod") {
            parts.pop();
        }
        if parts == ["lib"] { Vec::new() } else { parts }
    }

    /// What the file imports.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        collect_imports(&self.tokens(), &mut found);
        found
    }

    /// Paths of two names or more: those of imports, and those in the code.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut found: Vec<_> = self.imports().into_iter().map(|import| import.path).collect();
        collect_paths(&self.tokens(), &mut found);
        found.retain(|path| path.len() > 1);
        found
    }
}

/// Leaves out items under `#[cfg(test)]`.
fn without_tests(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let (mut kept, mut tokens) = (Vec::new(), tokens.into_iter().peekable());
    while let Some(token) = tokens.next() {
        let is_hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        let is_test = is_hash
            && matches!(tokens.peek(), Some(TokenTree::Group(group))
                if group.delimiter() == Delimiter::Bracket && group.stream().to_string().replace(' ', "") == "cfg(test)");
        if !is_test {
            kept.push(token);
            continue;
        }
        // Up to the end of the item: its body, or a semicolon.
        for token in tokens.by_ref() {
            match token {
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                _ => {}
            }
        }
    }
    kept
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn collect_imports(tokens: &[TokenTree], found: &mut Vec<Import>) {
    let mut at = 0;
    while at < tokens.len() {
        if let TokenTree::Group(group) = &tokens[at] {
            collect_imports(&group.stream().into_iter().collect::<Vec<_>>(), found);
        }
        if ident(tokens.get(at)).as_deref() == Some("use") {
            let end = (at..tokens.len()).find(|end| is_punct(tokens.get(*end), ';'));
            // `use<..>` of a return type is no import.
            if let Some(end) = end.filter(|_| !is_punct(tokens.get(at + 1), '<')) {
                let before = &tokens[..at];
                let is_restricted = matches!(before.last(), Some(TokenTree::Group(_)));
                let visibility = before.len().checked_sub(if is_restricted { 2 } else { 1 });
                let is_public = visibility.is_some_and(|at| ident(before.get(at)).as_deref() == Some("pub"));
                collect_tree(&tokens[at + 1..end], &[], is_public, found);
                at = end;
            }
        }
        at += 1;
    }
}

/// The names of one `use`, or of a part of it in braces.
fn collect_tree(tokens: &[TokenTree], prefix: &[String], is_public: bool, found: &mut Vec<Import>) {
    let (mut path, mut alias) = (prefix.to_vec(), None);
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(ident) if *ident == "as" => {
                alias = tokens.get(at + 1).map(ToString::to_string);
                at += 1;
            }
            TokenTree::Ident(ident) => path.push(ident.to_string()),
            TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".into()),
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                for part in inner.split(|token| is_punct(Some(token), ',')).filter(|part| !part.is_empty()) {
                    collect_tree(part, &path, is_public, found);
                }
                return;
            }
            _ => {}
        }
        at += 1;
    }
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = alias.or_else(|| path.last().cloned()) {
        found.push(Import { path, name, is_public });
    }
}

fn collect_paths(tokens: &[TokenTree], found: &mut Vec<Vec<String>>) {
    let mut at = 0;
    while at < tokens.len() {
        if let TokenTree::Group(group) = &tokens[at] {
            collect_paths(&group.stream().into_iter().collect::<Vec<_>>(), found);
        }
        let continues = at >= 1 && is_punct(tokens.get(at - 1), ':');
        if let Some(first) = ident(tokens.get(at)).filter(|_| !continues) {
            let mut path = vec![first];
            while is_punct(tokens.get(at + 1), ':') && is_punct(tokens.get(at + 2), ':') {
                let Some(next) = ident(tokens.get(at + 3)) else { break };
                path.push(next);
                at += 3;
            }
            found.push(path);
        }
        at += 1;
    }
}
