//! The one error type. A kind, a message for the caller, and what was at fault.
//!
//! The message is for whoever sent the request or wrote the manifest. `source` is for the log only: a
//! guest's backtrace, a library's chain of causes. Each protocol maps the kind to a status in one place.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the words of the plugin contract (`wit/hostler.wit`, `error-kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidInput,
    NotFound,
    Unsupported,
    TooLarge,
    Overloaded,
    Unavailable,
    Deadline,
    Cancelled,
    Failed,
    /// What was asked for does not fit what is there now. Only the host gives it; guests see `Failed`.
    Conflict,
    /// The caller may not do this. Only the host returns it, never a plugin.
    Forbidden,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::InvalidInput,
        Kind::NotFound,
        Kind::Unsupported,
        Kind::TooLarge,
        Kind::Overloaded,
        Kind::Unavailable,
        Kind::Deadline,
        Kind::Cancelled,
        Kind::Failed,
        Kind::Conflict,
        Kind::Forbidden,
    ];

    /// Whether it says that something is wrong with the request, not with what was to answer it.
    pub fn is_about_request(self) -> bool {
        matches!(self, Kind::InvalidInput | Kind::NotFound | Kind::Unsupported | Kind::TooLarge)
    }

    /// The name in answers, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::InvalidInput => "invalid_input",
            Kind::NotFound => "not_found",
            Kind::Unsupported => "unsupported",
            Kind::TooLarge => "too_large",
            Kind::Overloaded => "overloaded",
            Kind::Unavailable => "unavailable",
            Kind::Deadline => "deadline",
            Kind::Cancelled => "cancelled",
            Kind::Failed => "failed",
            Kind::Conflict => "conflict",
            Kind::Forbidden => "forbidden",
        }
    }
}

/// Whose word an error's kind is. It decides what becomes of an error that leaves a plugin, and what a
/// rollout counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultOwner {
    /// The host's, about what it was asked to do.
    #[default]
    Host,
    /// The host's, about a call that no plugin should make, whatever the request is.
    Misuse,
    /// The host's, about data that came from the caller unchanged.
    Caller,
    /// The host's, about tensors of a plugin, which the error names.
    Maker,
    /// A plugin's, which has chosen the kind.
    Plugin,
}

/// Bytes of a message: room for a manifest with fifty faults, but not to echo a whole request into a log.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Bytes of a name that is shown or compared.
const NAME_BYTES_MAX: usize = 256;

/// Boxed, so that a `Result` stays small on the paths where nothing goes wrong.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    field: Option<String>,
    model: Option<String>,
    plugin: Option<String>,
    step: Option<String>,
    source: Option<String>,
    transient: bool,
    ground: FaultOwner,
    is_graph_refusal: bool,
    is_unjudged: bool,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        $(pub fn $name(message: impl Into<String>) -> Self {
            Self::new(Kind::$kind, message)
        })*
    };
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: printable(cut(message.into(), MESSAGE_BYTES_MAX)),
            field: None,
            model: None,
            plugin: None,
            step: None,
            source: None,
            transient: false,
            ground: FaultOwner::Host,
            is_graph_refusal: false,
            is_unjudged: false,
        }))
    }

    constructors! {
        invalid => InvalidInput,
        not_found => NotFound,
        unsupported => Unsupported,
        too_large => TooLarge,
        overloaded => Overloaded,
        unavailable => Unavailable,
        deadline => Deadline,
        cancelled => Cancelled,
        failed => Failed,
        forbidden => Forbidden,
    }

    /// What the operating system said of a file, a thread or a process. Says neither what was attempted nor on
    /// what: that is for the caller to add as context.
    pub fn io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            _ if is_transient(error) => Kind::Unavailable,
            ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::InvalidInput,
        };
        let mut io = Self::new(kind, error.to_string());
        io.0.transient = is_transient(error);
        io
    }

    /// The cause may pass: the same attempt can succeed later, with the same files.
    pub fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    /// The input field at fault.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field.get_or_insert(printable(cut(field.into(), NAME_BYTES_MAX)));
        self
    }

    /// The plugin at fault. The first one named stays: it is the nearest to the cause.
    pub fn plugin(mut self, plugin: impl Into<String>) -> Self {
        self.0.plugin.get_or_insert(plugin.into());
        self
    }

    /// The model that was asked. The first one named stays.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.0.model.get_or_insert(model.into());
        self
    }

    /// The step of a pipeline that failed. In a pipeline that is a step itself: `outer.inner`.
    pub fn step(mut self, step: &str) -> Self {
        self.0.step = Some(match self.0.step.take() {
            Some(inner) => format!("{step}.{inner}"),
            None => step.to_owned(),
        });
        self
    }

    /// The same about another field.
    pub fn with_field(mut self, field: String) -> Self {
        self.0.field = Some(printable(cut(field, NAME_BYTES_MAX)));
        self
    }

    /// What is wrong is not in the caller's request, but in what was made of it.
    pub fn as_failure(mut self) -> Self {
        self.0.kind = Kind::Failed;
        self.0.ground = FaultOwner::Host;
        self.0.field = None;
        self
    }

    /// Detail for the log, never for the caller.
    pub fn with_detail(mut self, source: impl Into<String>) -> Self {
        self.0.source.get_or_insert(source.into());
        self
    }

    /// The same in other words.
    pub fn with_message(mut self, message: &str) -> Self {
        self.0.message = printable(cut(message.to_owned(), MESSAGE_BYTES_MAX));
        self
    }

    /// Says whose word the kind is.
    pub fn owned_by(mut self, ground: FaultOwner) -> Self {
        self.0.ground = ground;
        self
    }

    /// Says that the graph of a model refused its inputs in the middle of a run: they may be wrong, or
    /// the model is.
    pub fn graph_refusal(mut self) -> Self {
        self.0.is_graph_refusal = true;
        self
    }

    /// Says that this is no evidence for or against the version of the model that was asked.
    pub fn unjudged(mut self) -> Self {
        self.0.is_unjudged = true;
        self
    }

    /// What the error is outside of the plugin to which the host gave it, and which has returned it. What
    /// the host says to a plugin about its call is no answer to the caller, who has not made that call.
    pub fn returned_by(self, plugin: &str) -> Self {
        match self.0.ground {
            FaultOwner::Caller => self,
            FaultOwner::Host if !self.0.kind.is_about_request() => self.plugin(plugin),
            FaultOwner::Host | FaultOwner::Misuse => {
                let what = format!("plugin \"{plugin}\": a host call failed with {}", self.0.kind.as_str());
                self.into_failure(what).plugin(plugin)
            }
            FaultOwner::Maker | FaultOwner::Plugin => self.settled().plugin(plugin),
        }
    }

    /// What the error is for the caller: tensors that a plugin made are no fault of the caller's.
    pub fn settled(self) -> Self {
        if self.0.ground != FaultOwner::Maker || !self.0.kind.is_about_request() {
            return self;
        }
        let plugin = self.plugin_name().unwrap_or_default();
        let what = format!("plugin \"{plugin}\" made tensors that were refused");
        self.into_failure(what)
    }

    fn into_failure(mut self, what: String) -> Self {
        self.0.kind = Kind::Failed;
        self.0.ground = FaultOwner::Host;
        self.0.field = None;
        self.context(what)
    }

    /// Says what was attempted: `model "a:1": …`.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{}: {}", printable(what.to_string()), self.0.message);
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    pub fn model_name(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    pub fn plugin_name(&self) -> Option<&str> {
        self.0.plugin.as_deref()
    }

    pub fn step_name(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// Whether the cause may pass by itself: the fault is not in what was given.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    pub fn owner(&self) -> FaultOwner {
        self.0.ground
    }

    pub fn is_graph_refusal(&self) -> bool {
        self.0.is_graph_refusal
    }

    pub fn is_unjudged(&self) -> bool {
        self.0.is_unjudged
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.source.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.as_str(), self.0.message)?;
        if let Some(field) = &self.0.field {
            write!(f, " (field {field})")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, "\n{source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Whether an error of the operating system speaks of a shortage or a disturbance, not of what was asked for.
pub fn is_transient(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    match error.raw_os_error() {
        Some(code) => matches!(
            code,
            libc::EMFILE
                | libc::ENFILE
                | libc::EAGAIN
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::ENOSPC
                | libc::EDQUOT
                | libc::EIO
                | libc::ESTALE
                | libc::EINTR
                | libc::EBUSY
                | libc::ETXTBSY
                | libc::ENOLCK
                | libc::ETIMEDOUT
                | libc::EREMOTEIO
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ECONNRESET
                | libc::ENOTCONN
        ),
        None => matches!(
            error.kind(),
            ErrorKind::OutOfMemory
                | ErrorKind::Interrupted
                | ErrorKind::TimedOut
                | ErrorKind::WouldBlock
                | ErrorKind::StorageFull
                | ErrorKind::QuotaExceeded
                | ErrorKind::StaleNetworkFileHandle
                | ErrorKind::ResourceBusy
        ),
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

/// Control characters from requests, a NUL among them, as `\u{0}`: messages go to terminals and into headers. Lines
/// and tabs are a message's own.
fn printable(text: String) -> String {
    let is_raw = |one: char| one.is_control() && !matches!(one, '\n' | '\t');
    if !text.contains(is_raw) {
        return text;
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for one in text.chars() {
        match is_raw(one) {
            true => shown.extend(one.escape_unicode()),
            false => shown.push(one),
        }
    }
    shown
}

/// The nearest of `known` to `name`, for a hint: "did you mean".
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The comparison takes the product of the lengths, and a request can be one long name.
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let close =
        |candidate: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
    let (distance, best) = known
        .into_iter()
        .map(|candidate| (close(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the letters may be wrong.
    (distance <= 1 + name.chars().count() / 3).then_some(best)
}

/// ` (did you mean "x"?)`, or nothing.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |best| format!(" (did you mean \"{best}\"?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_typos_and_refuses_strangers() {
        let known = ["bankchurn", "echo"];
        assert_eq!(nearest("bankchrun", known), Some("bankchurn"));
        assert_eq!(nearest("Echo", known), Some("echo"));
        assert_eq!(nearest("translator", known), None);
    }

    #[test]
    fn a_shortage_may_pass_and_a_missing_file_is_a_fault() {
        for code in [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM, libc::ENOSPC, libc::EIO] {
            let error = Error::io(&std::io::Error::from_raw_os_error(code));
            assert!(error.is_transient(), "{error}");
            assert_eq!(error.context("cannot read x").kind(), Kind::Unavailable);
        }
        for code in [libc::ENOENT, libc::EACCES, libc::EISDIR, libc::ELOOP, libc::ENOTDIR] {
            let error = Error::io(&std::io::Error::from_raw_os_error(code));
            assert!(!error.is_transient(), "{error}");
        }
    }

    #[test]
    fn control_characters_of_a_request_are_not_printed() {
        let error = Error::invalid("no \"a\0\u{1b}[1m\u{9b}\"\n\tbut ü").context("in \"\r\"");
        assert_eq!(error.message(), "in \"\\u{d}\": no \"a\\u{0}\\u{1b}[1m\\u{9b}\"\n\tbut ü");
    }
}
