//! The only error type: a kind, a message for the caller, and what was at fault.
//!
//! The message is for the sender of the request or the author of the manifest. The detail is for
//! the log only, such as a guest's backtrace or a library's causes. Each protocol maps the kind to
//! a status in one place.

mod author;
mod kind;
mod quota;

pub use kind::{FaultOwner, Kind};
pub use quota::Quota;

use std::fmt;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest message: enough for a manifest with fifty faults, but not to copy a whole request
/// into a log.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// The longest name that is shown or compared, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Boxed, so that a `Result` stays small when nothing goes wrong.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    field: Option<String>,
    model: Option<String>,
    plugin: Option<String>,
    function: Option<&'static str>,
    step: Option<String>,
    detail: Option<String>,
    transient: bool,
    owner: FaultOwner,
    is_graph_refusal: bool,
    is_unjudged: bool,
    is_laid_out: bool,
    retry_after: Option<Duration>,
    quota: Option<Quota>,
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
            function: None,
            step: None,
            detail: None,
            transient: false,
            owner: FaultOwner::Host,
            is_graph_refusal: false,
            is_unjudged: false,
            is_laid_out: false,
            retry_after: None,
            quota: None,
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
        unauthenticated => Unauthenticated,
    }

    /// An error of the operating system about a file, a thread or a process. It does not say what
    /// was attempted; the caller adds that as context.
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

    /// Marks the cause as transient: the same attempt may succeed later, with the same files.
    pub fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    /// Says when the same request may succeed.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Names the quota that is used up.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.0.quota = Some(quota);
        self
    }

    /// Returns when the same request may succeed, as far as that is known.
    pub fn when_to_retry(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the quota that is used up.
    pub fn used_up(&self) -> Option<Quota> {
        self.0.quota
    }

    /// Sets the input field at fault. The first one stays.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field.get_or_insert(printable(cut(field.into(), NAME_BYTES_MAX)));
        self
    }

    /// Sets the plugin at fault. The first one stays, because it is the nearest to the cause.
    pub fn plugin(mut self, plugin: impl Into<String>) -> Self {
        self.0.plugin.get_or_insert(plugin.into());
        self
    }

    /// Sets the function of the plugin that was called. The first one stays.
    pub fn function(mut self, function: &'static str) -> Self {
        self.0.function.get_or_insert(function);
        self
    }

    /// Sets the model that was called. The first one stays.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.0.model.get_or_insert(model.into());
        self
    }

    /// Adds the step of a pipeline that failed. In nested pipelines the name is `outer.inner`.
    pub fn step(mut self, step: &str) -> Self {
        self.0.step = Some(match self.0.step.take() {
            Some(inner) => format!("{step}.{inner}"),
            None => step.to_owned(),
        });
        self
    }

    /// Replaces the field.
    pub fn with_field(mut self, field: String) -> Self {
        self.0.field = Some(printable(cut(field, NAME_BYTES_MAX)));
        self
    }

    /// Makes it a failure of the host: the fault is not in the caller's request, but in what was
    /// made of it.
    pub fn as_failure(mut self) -> Self {
        self.0.kind = Kind::Failed;
        self.0.owner = FaultOwner::Host;
        self.0.field = None;
        self
    }

    /// Sets the detail for the log, which the caller never sees. The first one stays.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail.get_or_insert(detail.into());
        self
    }

    /// Replaces the message.
    pub fn with_message(mut self, message: &str) -> Self {
        self.0.message = printable(cut(message.to_owned(), MESSAGE_BYTES_MAX));
        self
    }

    /// Sets who chose the kind.
    pub fn owned_by(mut self, owner: FaultOwner) -> Self {
        self.0.owner = owner;
        self
    }

    /// Marks that the graph of a model refused its inputs during a run: either the inputs or the
    /// model are wrong.
    pub fn graph_refusal(mut self) -> Self {
        self.0.is_graph_refusal = true;
        self
    }

    /// Marks that the error is no evidence for or against the version of the model.
    pub fn unjudged(mut self) -> Self {
        self.0.is_unjudged = true;
        self
    }

    /// Marks that the message consists of lines that the host has laid out: its newlines are not
    /// those of a client, a guest or a file.
    pub fn laid_out(mut self) -> Self {
        self.0.is_laid_out = true;
        self
    }

    /// Converts an error that the host returned to a plugin, and that the plugin returned in turn.
    /// An error about the plugin's own host call is not about the caller's request.
    pub fn returned_by(self, plugin: &str) -> Self {
        match self.0.owner {
            FaultOwner::Caller => self,
            FaultOwner::Host if !self.0.kind.is_about_request() => self.plugin(plugin),
            FaultOwner::Host | FaultOwner::Misuse => {
                let what = format!("plugin \"{plugin}\": a host call failed with {}", self.0.kind.as_str());
                self.into_failure(what).plugin(plugin)
            }
            FaultOwner::Maker | FaultOwner::Plugin => self.settled().plugin(plugin),
        }
    }

    /// Converts the error for the caller: tensors that a plugin made are not the caller's fault.
    pub fn settled(self) -> Self {
        if self.0.owner != FaultOwner::Maker || !self.0.kind.is_about_request() {
            return self;
        }
        let plugin = self.plugin_name().unwrap_or_default();
        let what = format!("plugin \"{plugin}\" made tensors that were refused");
        self.into_failure(what)
    }

    fn into_failure(mut self, what: String) -> Self {
        self.0.kind = Kind::Failed;
        self.0.owner = FaultOwner::Host;
        self.0.field = None;
        self.context(what)
    }

    /// Prepends what was attempted, as in `model "a:1": …`.
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

    pub fn function_name(&self) -> Option<&'static str> {
        self.0.function
    }

    pub fn step_name(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// Returns true if the cause may pass by itself, because the fault is not in the input.
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    pub fn owner(&self) -> FaultOwner {
        self.0.owner
    }

    pub fn is_graph_refusal(&self) -> bool {
        self.0.is_graph_refusal
    }

    pub fn is_laid_out(&self) -> bool {
        self.0.is_laid_out
    }

    pub fn is_unjudged(&self) -> bool {
        self.0.is_unjudged
    }

    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
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
        if let Some(detail) = &self.0.detail {
            write!(f, "\n{detail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Returns true if an error of the operating system means a shortage or a disturbance, not a wrong
/// argument.
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

/// Escapes control characters from requests, such as NUL, as `\u{0}`: messages go to terminals and
/// into headers. Newlines and tabs are kept.
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

/// Returns the name in `known` that is nearest to `name`, for a "did you mean" hint.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The cost is the product of the lengths, and a request can consist of one long name.
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let close =
        |candidate: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
    let (distance, best) = known
        .into_iter()
        .map(|candidate| (close(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the letters may differ.
    (distance <= 1 + name.chars().count() / 3).then_some(best)
}

/// Returns ` (did you mean "x"?)`, or an empty string.
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
