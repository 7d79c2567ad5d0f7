//! Every link between the project's own documents leads somewhere.

use super::sources::root;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name) {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// Lines outside of code blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut keep = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    text.lines().filter(|line| keep(line)).collect()
}

/// The anchors of a page's headings, as code forges make them.
fn anchors(text: &str) -> HashSet<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let (mut pages, mut faults) = (Vec::new(), Vec::new());
    documents(root(), &mut pages);
    assert!(pages.len() > 20, "{pages:?}");
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for line in prose(&text) {
            for rest in line.split("](").skip(1) {
                let link = rest.split(')').next().unwrap_or_default();
                if link.contains("://") || link.contains(' ') || link.is_empty() {
                    continue;
                }
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
                let shown = page.strip_prefix(root()).unwrap().display();
                if !target.exists() {
                    faults.push(format!("{shown}: ({link}): there is no such file"));
                } else if !anchor.is_empty()
                    && !anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor)
                {
                    faults.push(format!("{shown}: ({link}): there is no such heading"));
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}
