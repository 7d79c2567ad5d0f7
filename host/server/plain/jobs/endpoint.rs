//! What a path of `/predict/async` or `/jobs` names.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum JobsEndpoint<'a> {
    /// `/predict/async`
    Submit,
    /// `/predict/async/batch`
    SubmitBatch,
    /// `/predict/async/<model>`: the body is the input. The name is still percent-encoded.
    SubmitBody(&'a str),
    /// `/jobs`
    List,
    /// `/jobs/<id>`
    Job(&'a str),
    /// `/jobs/<id>/cancel`
    Cancel(&'a str),
    /// `/jobs/<id>/result`
    Result(&'a str),
    /// `/jobs/<id>/retry`
    Retry(&'a str),
    /// No route, under `/jobs/`.
    Unknown,
}

impl<'a> JobsEndpoint<'a> {
    /// Parses the rest of a path after `/predict/async`. Returns `None` if it is no submission.
    pub fn submission(rest: Option<&'a str>) -> Option<Self> {
        match rest {
            None => Some(JobsEndpoint::Submit),
            Some("batch") => Some(JobsEndpoint::SubmitBatch),
            Some(rest) if rest.is_empty() || rest.contains('/') => None,
            Some(model) => Some(JobsEndpoint::SubmitBody(model)),
        }
    }

    /// Returns `None` for a path that is not under `/jobs`.
    pub fn parse(path: &'a str) -> Option<Self> {
        Some(match path {
            "/jobs" => JobsEndpoint::List,
            _ => match path.strip_prefix("/jobs/")? {
                rest if rest.is_empty() || rest.starts_with('/') => JobsEndpoint::Unknown,
                rest => match rest.split_once('/') {
                    None => JobsEndpoint::Job(rest),
                    Some((job, "cancel")) => JobsEndpoint::Cancel(job),
                    Some((job, "result")) => JobsEndpoint::Result(job),
                    Some((job, "retry")) => JobsEndpoint::Retry(job),
                    Some(_) => JobsEndpoint::Unknown,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::JobsEndpoint::{self, Cancel, Job, List, Submit, SubmitBatch, Unknown};

    #[test]
    fn jobs_have_one_segment_and_may_be_cancelled() {
        for (path, expected) in [
            ("/jobs", Some(List)),
            ("/jobs/", Some(Unknown)),
            ("/jobs//cancel", Some(Unknown)),
            ("/jobs/7", Some(Job("7"))),
            ("/jobs/7/", Some(Unknown)),
            ("/jobs/7/cancel", Some(Cancel("7"))),
            ("/jobs/7/cancel/", Some(Unknown)),
            ("/jobs/7/result", Some(JobsEndpoint::Result("7"))),
            ("/jobs/7/retry", Some(JobsEndpoint::Retry("7"))),
            ("/jobs/7/results", Some(Unknown)),
            ("/jobs7", None),
        ] {
            assert_eq!(JobsEndpoint::parse(path), expected, "{path}");
        }
        assert_eq!(JobsEndpoint::submission(None), Some(Submit));
        assert_eq!(JobsEndpoint::submission(Some("batch")), Some(SubmitBatch));
        assert_eq!(JobsEndpoint::submission(Some("a%3A1")), Some(JobsEndpoint::SubmitBody("a%3A1")));
        assert_eq!(JobsEndpoint::submission(Some("")), None);
        assert_eq!(JobsEndpoint::submission(Some("batch/")), None);
    }
}
