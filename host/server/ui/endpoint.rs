//! What a path under `/ui` names.

const API: &str = "/ui/api";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum PageEndpoint<'a> {
    /// A file of the page; empty for `/ui` itself.
    File(&'a str),
    /// What the page asks for: the rest of the path, which begins with a slash.
    Api(&'a str),
}

impl<'a> PageEndpoint<'a> {
    /// Returns `None` for a path that is not under `/ui`.
    pub fn parse(path: &'a str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix(API)
            && rest.starts_with('/')
        {
            return Some(PageEndpoint::Api(rest));
        }
        let file = path.strip_prefix("/ui")?;
        (file.is_empty() || file.starts_with('/')).then_some(PageEndpoint::File(file))
    }
}

#[cfg(test)]
mod tests {
    use super::PageEndpoint::{self, Api, File};

    #[test]
    fn the_page_and_what_it_asks_for_are_told_apart() {
        for (path, expected) in [
            ("/ui", Some(File(""))),
            ("/ui/", Some(File("/"))),
            ("/ui/main.js", Some(File("/main.js"))),
            ("/ui/api", Some(File("/api"))),
            ("/ui/api/session", Some(Api("/session"))),
            ("/ui/api/admin/policy", Some(Api("/admin/policy"))),
            ("/ui/api.js", Some(File("/api.js"))),
            ("/uis", None),
            ("/admin/policy", None),
        ] {
            assert_eq!(PageEndpoint::parse(path), expected, "{path}");
        }
    }
}
