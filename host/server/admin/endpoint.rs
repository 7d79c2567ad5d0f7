//! What a path under `/admin` names.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminEndpoint<'a> {
    /// `/admin/policy`
    Policy,
    /// `/admin/status`
    Status,
    /// `/admin/reloads`
    Reloads,
    /// `/admin/reload`
    Reload,
    /// `/admin/policy/rollback`
    Rollback,
    /// `/admin/policy/promote`
    Promote,
    /// `/admin/pipelines`
    Pipelines,
    /// `/admin/pipelines/<name>`. The name is still percent-encoded.
    Pipeline(&'a str),
    /// `/admin/plugins/<name>/log`. The name is still percent-encoded.
    PluginLog(&'a str),
    /// `/admin/jobs/reset`
    ResetJobs,
    /// `/admin/jobs/purge`
    PurgeJobs,
}

impl<'a> AdminEndpoint<'a> {
    pub fn parse(path: &'a str) -> Option<Self> {
        Some(match path.strip_prefix("/admin/")? {
            "policy" => AdminEndpoint::Policy,
            "status" => AdminEndpoint::Status,
            "reloads" => AdminEndpoint::Reloads,
            "reload" => AdminEndpoint::Reload,
            "policy/rollback" => AdminEndpoint::Rollback,
            "policy/promote" => AdminEndpoint::Promote,
            "pipelines" => AdminEndpoint::Pipelines,
            "jobs/reset" => AdminEndpoint::ResetJobs,
            "jobs/purge" => AdminEndpoint::PurgeJobs,
            rest => match rest.split_once('/')? {
                ("pipelines", name) => AdminEndpoint::Pipeline(name),
                ("plugins", rest) => AdminEndpoint::PluginLog(rest.strip_suffix("/log")?),
                _ => return None,
            },
        })
    }

    /// Returns the one method that the path takes, besides HEAD where it is GET.
    pub fn method(self) -> &'static str {
        match self {
            AdminEndpoint::Policy
            | AdminEndpoint::Status
            | AdminEndpoint::Reloads
            | AdminEndpoint::Pipelines
            | AdminEndpoint::Pipeline(_)
            | AdminEndpoint::PluginLog(_) => "GET",
            AdminEndpoint::Reload
            | AdminEndpoint::Rollback
            | AdminEndpoint::Promote
            | AdminEndpoint::ResetJobs
            | AdminEndpoint::PurgeJobs => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AdminEndpoint::{self, Pipeline, PluginLog, Policy, Rollback};

    #[test]
    fn paths_have_their_endpoints() {
        for (path, expected) in [
            ("/admin/policy", Some(Policy)),
            ("/admin/policy/", None),
            ("/admin/policy/rollback", Some(Rollback)),
            ("/admin/pipelines/a%20b", Some(Pipeline("a%20b"))),
            ("/admin/plugins/p/log", Some(PluginLog("p"))),
            ("/admin/plugins/p", None),
            ("/admin/plugins/log", None),
            ("/admin", None),
            ("/administration", None),
        ] {
            assert_eq!(AdminEndpoint::parse(path), expected, "{path}");
        }
    }
}
