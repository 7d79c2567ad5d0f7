//! Says which limit of an engine's pool was reached.

/// Describes which limit of the pool was reached.
///
/// wasmtime tells this only in the text of its error: `maximum concurrent limit of N for WHAT
/// reached`.
pub(super) fn pool_limit(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    let limit = text.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap_or_default();
    let is = |what: &str| text.contains(what);
    let (what, why) = if is("component instances") {
        ("plugin instances of the host are in use", "")
    } else if is("memory stripe") {
        (
            "linear memories of the host's plugin instances are in use",
            " (two per instance; a component may have more)",
        )
    } else if is("tables") {
        (
            "tables of the host's plugin instances are in use",
            " (eight per instance; a component may have more)",
        )
    } else if is("core instances") {
        ("core instances of the host's plugin instances are in use", "")
    } else if is("fibers") {
        ("native stacks for calls of plugins are in use", "")
    } else {
        return format!("no slot is free for another instance: {text}");
    };
    format!("all {limit} {what}{why}")
}
