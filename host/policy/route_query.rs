//! What routing needs to know of a request.

/// The parts of a request that keep its caller on one version.
pub struct RouteQuery<'a> {
    pub request_id: &'a str,
    /// Returns the value of a header.
    pub header: &'a dyn Fn(&str) -> Option<String>,
}
