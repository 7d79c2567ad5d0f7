//! The names in a client's certificate, as access rules write them.

use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The most names of one certificate that count.
const NAMES_MAX: usize = 32;

/// Returns `cert:NAME` for each DNS name, URI and e-mail address of a certificate; for one without
/// alternative names, for its common name.
pub(super) fn client_names(certificate: &[u8]) -> Arc<[Arc<str>]> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Arc::default() };
    let Ok(alternatives) = certificate.subject_alternative_name() else { return Arc::default() };
    let has_alternatives = alternatives.is_some();
    let alternatives = alternatives.map(|extension| &extension.value.general_names);
    let mut names: Vec<&str> = alternatives
        .into_iter()
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                Some(*name)
            }
            _ => None,
        })
        .collect();
    if !has_alternatives {
        let common = certificate.subject().iter_common_name().next();
        names.extend(common.and_then(|name| name.as_str().ok()));
    }
    names.retain(|name| !name.is_empty() && !name.chars().any(char::is_control));
    names.into_iter().take(NAMES_MAX).map(|name| format!("cert:{name}").into()).collect()
}
