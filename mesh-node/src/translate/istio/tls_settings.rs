//! How connections to a host are protected.
//!
//! In:  `tls` of a traffic policy.
//! Out: [`UpstreamTls`].
//! Source: Istio `ClientTLSSettings`.

use crate::model::http::{OriginateTls, UpstreamTls};
use crate::translate::read::Place;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Disable,
    Simple,
    Mesh,
}

/// What a `tls` says; `None` if it is absent.
pub(super) fn tls(place: &Place<'_>) -> Option<UpstreamTls> {
    let mut fields = place.fields()?;
    let words = [("DISABLE", Mode::Disable), ("SIMPLE", Mode::Simple), ("ISTIO_MUTUAL", Mode::Mesh)];
    let mode = fields.take("mode");
    // Absence is the first word of the API's own list.
    let mode = if mode.is_there() { mode.choice_except(&words, &["MUTUAL"]) } else { Some(Mode::Disable) };
    let (sni, names) = (fields.take("sni").text(), fields.take("subjectAltNames").texts());
    let roots = fields.take("caCertificates").text().filter(|path| !path.is_empty() && *path != "system");
    let insecure = fields.take("insecureSkipVerify").bool().unwrap_or_default();
    let own = "no certificate is shown to servers outside the mesh; use SIMPLE";
    fields.take("clientCertificate").unsupported(own);
    fields.take("privateKey").unsupported(own);
    fields.take("credentialName").unsupported("give the roots by `caCertificates`");
    fields.take("caCrl").unsupported("remove it");
    Some(match mode? {
        Mode::Disable => UpstreamTls::Disable,
        Mode::Mesh => UpstreamTls::Mesh,
        Mode::Simple => UpstreamTls::Originate(OriginateTls {
            sni: sni.filter(|sni| !sni.is_empty()).map(str::to_owned),
            names: names.into_iter().map(str::to_owned).collect(),
            roots: roots.map(str::to_owned),
            insecure,
        }),
    })
}
