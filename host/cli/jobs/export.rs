//! `hostler jobs export`
//!
//! Each line is the host's JSON of one job, on one line. A result that is not JSON is added as
//! `result_base64` and `result_content_type`. A job that cannot be read is its entry in the list
//! with an `export_error`, so that no job is missing silently.

use super::arguments::Export;
use super::new_file::NewFile;
use super::pages::{Pages, Query, counted, encoded};
use crate::app;
use crate::cli::client::HostClient;
use crate::error::{Error, Kind, Result};
use crate::output;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::Duration;

pub async fn run(export: Export) -> Result<bool> {
    let Export { which, output, force, host } = export;
    let mut client = host.client()?;
    let mut pages = Pages::new(Query::of(&which), u64::MAX);
    let Some(path) = output else {
        return write(&mut client, &mut pages, &mut Sink::Stdout).await.map(Written::report);
    };
    let mut signals = app::signals()?;
    // Removing the file does not take long.
    signals.serving(Duration::ZERO);
    let mut sink = Sink::File(NewFile::create(&path, force)?);
    // Whichever branch ends, a file that is not complete is removed with its value.
    let written = tokio::select! {
        written = write(&mut client, &mut pages, &mut sink) => written?,
        signal = signals.stop() => {
            return Err(Error::cancelled(format!("{signal}: {} was not written", path.display())));
        }
    };
    if let Sink::File(file) = sink {
        file.publish()?;
    }
    output::print(format_args!("{}: {}", path.display(), counted(written.jobs)));
    Ok(written.report())
}

/// Where lines go.
enum Sink {
    Stdout,
    File(NewFile),
}

impl Sink {
    fn write(&mut self, line: &str) -> Result<()> {
        match self {
            Sink::Stdout => {
                output::print_json(line);
                Ok(())
            }
            Sink::File(file) => {
                file.write(line.as_bytes())?;
                file.write(b"\n")
            }
        }
    }

    /// Returns whether nobody reads what is written.
    fn is_closed(&self) -> bool {
        matches!(self, Sink::Stdout) && output::has_failed()
    }
}

#[derive(Default)]
struct Written {
    jobs: u64,
    /// Jobs that were deleted or expired between the list and their turn.
    gone: u64,
    /// Jobs that the host could not read.
    failed: u64,
}

impl Written {
    /// Reports what is missing. Returns false if something is that should be there.
    fn report(self) -> bool {
        if self.gone > 0 {
            let gone = counted(self.gone);
            output::report(format_args!("{gone} expired or got deleted during the export"));
        }
        if self.failed > 0 {
            let failed = counted(self.failed);
            output::report(format_args!("the host could not read {failed}: see export_error in the output"));
        }
        self.failed == 0
    }
}

async fn write(client: &mut HostClient, pages: &mut Pages, sink: &mut Sink) -> Result<Written> {
    let mut written = Written::default();
    while let Some(entries) = pages.next(client).await? {
        for entry in entries {
            match line(client, entry).await? {
                Line::Job(line) => {
                    sink.write(&line)?;
                    written.jobs += 1;
                }
                Line::Unreadable(line) => {
                    sink.write(&line)?;
                    written.failed += 1;
                }
                Line::Gone => written.gone += 1,
            }
            if sink.is_closed() {
                return Ok(written);
            }
        }
    }
    Ok(written)
}

enum Line {
    Job(String),
    Unreadable(String),
    Gone,
}

/// Returns the line of a job, given its entry in the list.
async fn line(client: &mut HostClient, mut entry: Value) -> Result<Line> {
    let Some(id) = entry["job_id"].as_str().map(str::to_owned) else {
        return Err(Error::failed(format!(
            "cannot export the jobs of {}: an entry has no id",
            client.address()
        )));
    };
    match read(client, &id).await {
        Ok(line) => Ok(Line::Job(line)),
        Err(error) if error.kind() == Kind::NotFound => Ok(Line::Gone),
        // What the host says about one job. Anything else concerns them all.
        Err(error) if error.kind() == Kind::Failed => {
            entry["export_error"] = json!({"kind": error.kind().as_str(), "message": error.message()});
            Ok(Line::Unreadable(entry.to_string()))
        }
        Err(error) => Err(error.context(format!("cannot export job \"{id}\""))),
    }
}

async fn read(client: &mut HostClient, id: &str) -> Result<String> {
    let path = format!("/jobs/{}", encoded(id));
    let answer = client.get(&path).await?;
    let job: Exported<'_> = client.decode(&answer)?;
    let text = std::str::from_utf8(&answer.body);
    let text = one_line(text.map_err(|_| Error::failed("the job as the host sends it is not UTF-8"))?);
    if job.state != "succeeded" || job.has_result {
        return Ok(text);
    }
    let result = client.get(&format!("{path}/result")).await?;
    let content_type = (!job.has_type).then_some(&*result.content_type);
    Ok(with_result(&text, content_type, &result.body))
}

/// What the export looks at in the JSON of a job.
#[derive(Deserialize)]
struct Exported<'a> {
    #[serde(borrow)]
    state: Cow<'a, str>,
    #[serde(default, rename = "result", deserialize_with = "is_there")]
    has_result: bool,
    #[serde(default, rename = "result_content_type", deserialize_with = "is_there")]
    has_type: bool,
}

/// Reads a key with any value, which may be null.
fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Returns JSON on one line. Its line breaks are between values, never in them. The values stay as
/// the host has written them.
fn one_line(json: &str) -> String {
    json.trim().replace(['\n', '\r'], " ")
}

/// Adds a result to an object: as JSON if it is, else as base64. `content_type` is that of the
/// result, unless the object has it already.
fn with_result(object: &str, content_type: Option<&str>, bytes: &[u8]) -> String {
    let body = object.strip_suffix('}').unwrap_or(object);
    let json = std::str::from_utf8(bytes).ok().filter(|_| content_type == Some("application/json"));
    if let Some(json) = json.filter(|json| serde_json::from_str::<&RawValue>(json).is_ok()) {
        return format!("{body},\"result\":{}}}", one_line(json));
    }
    let encoded = BASE64_STANDARD.encode(bytes);
    let content_type = content_type
        .map_or_else(String::new, |known| format!(",\"result_content_type\":{}", Value::from(known)));
    format!("{body}{content_type},\"result_base64\":\"{encoded}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_the_values_of_a_job() {
        let json = "{\"state\":\"succeeded\",\"result\":{\n  \"big\": 123456789012345678901234567890,\r\n  \"text\": \"a\\nb\"}}\n";
        let line = one_line(json);
        assert!(!line.contains(['\n', '\r']), "{line}");
        assert!(line.contains("123456789012345678901234567890"), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["result"]["text"], "a\nb");
    }

    #[test]
    fn a_result_is_there_even_if_it_is_null() {
        let exported = |json: &'static str| serde_json::from_str::<Exported<'_>>(json).unwrap().has_result;
        assert!(exported(r#"{"state":"succeeded","result":null}"#));
        assert!(!exported(r#"{"state":"succeeded"}"#));
        let line = with_result("{\"state\":\"succeeded\"}", Some("application/json"), b"[1,\n2]");
        assert_eq!(line, "{\"state\":\"succeeded\",\"result\":[1, 2]}");
        let line = with_result("{\"state\":\"succeeded\"}", Some("application/json"), b"[1,");
        assert!(line.contains("\"result_base64\":\"WzEs\""), "what is not JSON stays what it is: {line}");
    }

    #[test]
    fn a_result_that_is_not_json_is_added_as_base64() {
        let line = with_result("{\"state\":\"succeeded\"}", Some("image/png; x=\"y\""), b"\x89PNG\xff");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            json!({"state": "succeeded", "result_content_type": "image/png; x=\"y\"", "result_base64": "iVBOR/8="})
        );
    }
}
