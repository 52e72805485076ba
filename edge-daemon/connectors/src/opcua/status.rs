//! What a status code says, for a person: the name that the specification has for it. Knows the ones that are met.

/// Says that the lowest bits are about a value.
const IS_ABOUT_VALUE: u32 = 0x0000_0400;
/// There were more values than the server could keep for us.
const OVERFLOW: u32 = 0x0000_0080;
/// What is left besides details.
const CODE: u32 = 0xffff_0000;

/// A status of a value, or of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status(pub u32);

impl Status {
    pub(super) const GOOD: Status = Status(0);
    /// The server wants fewer requests for changes to wait.
    pub(super) const BAD_TOO_MANY_PUBLISH: Status = Status(0x8078_0000);

    /// Something about the certificates is not right; servers rarely say what.
    pub(super) const BAD_SECURITY_CHECKS: Status = Status(0x8013_0000);

    /// What would mend it, where a person can do something.
    pub(super) fn remedy(self) -> Option<&'static str> {
        let code = self.0 & CODE;
        REMEDIES
            .iter()
            .find(|(codes, _)| codes.contains(&code))
            .map(|(_, remedy)| *remedy)
    }

    /// Nothing can be done with what it stands at.
    pub(super) fn is_bad(self) -> bool {
        self.0 >> 31 == 1
    }

    /// Values before this one were lost in the server's queue.
    pub(super) fn has_overflown(self) -> bool {
        let about = IS_ABOUT_VALUE | OVERFLOW;
        self.0 & about == about
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.0 & CODE;
        match NAMES.iter().find(|(known, _)| *known == code) {
            Some((_, name)) => f.write_str(name)?,
            None => {
                let severity = ["Good", "Uncertain", "Bad", "Bad"][(code >> 30) as usize];
                write!(f, "{severity} 0x{code:08x}")?;
            }
        }
        if self.has_overflown() {
            f.write_str(" (overflow)")
        } else {
            Ok(())
        }
    }
}

const REMEDIES: &[(&[u32], &str)] = &[
    (
        &[0x8013_0000],
        "most often the server does not trust our certificate yet: put the one of security.cert_file into its list of trusted \
         ones, or move it there from the rejected ones; if it is there, the server's log says what it does not like",
    ),
    (
        &[0x801a_0000, 0x810d_0000],
        "put the certificate of security.cert_file into the server's list of trusted ones, or move it there from the rejected \
         ones; if an authority signed it, the server needs that one's as well",
    ),
    (
        &[0x8014_0000, 0x8015_0000],
        "see until when the certificates hold, and whether the clocks of both machines are right",
    ),
    (
        &[0x8017_0000],
        "the server wants the URI in the certificate to be the one that we say: make a certificate with one URI only among its \
         alternative names, and without blanks",
    ),
    (
        &[0x8012_0000, 0x8016_0000, 0x8018_0000, 0x8019_0000],
        "the certificate of security.cert_file is made for something else: make one as the reference of this source says",
    ),
    (
        &[0x801b_0000, 0x801c_0000, 0x801d_0000, 0x801e_0000],
        "the authority of the certificate took it back, or the server has no list of those that it took back: renew either",
    ),
    (
        &[0x8054_0000, 0x8055_0000],
        "see which modes and policies the server allows, and set security.mode and security.policy to one of them",
    ),
    (
        &[0x8058_0000, 0x8057_0000, 0x8024_0000],
        "the server does not take our signature: see that security.key_file is the key to the certificate it knows",
    ),
];

#[rustfmt::skip]
const NAMES: &[(u32, &str)] = &[
    (0x0000_0000, "Good"),
    (0x002f_0000, "GoodOverload"),
    (0x0030_0000, "GoodClamped"),
    (0x0096_0000, "GoodLocalOverride"),
    (0x00a2_0000, "GoodEntryInserted"),
    (0x4000_0000, "Uncertain"),
    (0x408f_0000, "UncertainNoCommunicationLastUsableValue"),
    (0x4090_0000, "UncertainLastUsableValue"),
    (0x4091_0000, "UncertainSubstituteValue"),
    (0x4092_0000, "UncertainInitialValue"),
    (0x4093_0000, "UncertainSensorNotAccurate"),
    (0x4094_0000, "UncertainEngineeringUnitsExceeded"),
    (0x4095_0000, "UncertainSubNormal"),
    (0x40a4_0000, "UncertainDataSubNormal"),
    (0x8000_0000, "Bad"),
    (0x8001_0000, "BadUnexpectedError"),
    (0x8002_0000, "BadInternalError"),
    (0x8003_0000, "BadOutOfMemory"),
    (0x8004_0000, "BadResourceUnavailable"),
    (0x8005_0000, "BadCommunicationError"),
    (0x8006_0000, "BadEncodingError"),
    (0x8007_0000, "BadDecodingError"),
    (0x800a_0000, "BadTimeout"),
    (0x800b_0000, "BadServiceUnsupported"),
    (0x800c_0000, "BadShutdown"),
    (0x800d_0000, "BadServerNotConnected"),
    (0x800e_0000, "BadServerHalted"),
    (0x8010_0000, "BadTooManyOperations"),
    (0x8012_0000, "BadCertificateInvalid"),
    (0x8013_0000, "BadSecurityChecksFailed"),
    (0x8014_0000, "BadCertificateTimeInvalid"),
    (0x8015_0000, "BadCertificateIssuerTimeInvalid"),
    (0x8016_0000, "BadCertificateHostNameInvalid"),
    (0x8017_0000, "BadCertificateUriInvalid"),
    (0x8018_0000, "BadCertificateUseNotAllowed"),
    (0x8019_0000, "BadCertificateIssuerUseNotAllowed"),
    (0x801a_0000, "BadCertificateUntrusted"),
    (0x801b_0000, "BadCertificateRevocationUnknown"),
    (0x801c_0000, "BadCertificateIssuerRevocationUnknown"),
    (0x801d_0000, "BadCertificateRevoked"),
    (0x801e_0000, "BadCertificateIssuerRevoked"),
    (0x801f_0000, "BadUserAccessDenied"),
    (0x8020_0000, "BadIdentityTokenInvalid"),
    (0x8021_0000, "BadIdentityTokenRejected"),
    (0x8022_0000, "BadSecureChannelIdInvalid"),
    (0x8024_0000, "BadNonceInvalid"),
    (0x8025_0000, "BadSessionIdInvalid"),
    (0x8026_0000, "BadSessionClosed"),
    (0x8027_0000, "BadSessionNotActivated"),
    (0x8028_0000, "BadSubscriptionIdInvalid"),
    (0x8031_0000, "BadNoCommunication"),
    (0x8032_0000, "BadWaitingForInitialData"),
    (0x8033_0000, "BadNodeIdInvalid"),
    (0x8034_0000, "BadNodeIdUnknown"),
    (0x8035_0000, "BadAttributeIdInvalid"),
    (0x8037_0000, "BadIndexRangeNoData"),
    (0x8038_0000, "BadDataEncodingInvalid"),
    (0x803a_0000, "BadNotReadable"),
    (0x803c_0000, "BadOutOfRange"),
    (0x803d_0000, "BadNotSupported"),
    (0x803e_0000, "BadNotFound"),
    (0x8040_0000, "BadNotImplemented"),
    (0x8054_0000, "BadSecurityModeRejected"),
    (0x8055_0000, "BadSecurityPolicyRejected"),
    (0x8056_0000, "BadTooManySessions"),
    (0x8057_0000, "BadUserSignatureInvalid"),
    (0x8058_0000, "BadApplicationSignatureInvalid"),
    (0x8074_0000, "BadTypeMismatch"),
    (0x8077_0000, "BadTooManySubscriptions"),
    (0x8078_0000, "BadTooManyPublishRequests"),
    (0x8079_0000, "BadNoSubscription"),
    (0x807d_0000, "BadTcpServerTooBusy"),
    (0x807e_0000, "BadTcpMessageTypeInvalid"),
    (0x807f_0000, "BadTcpSecureChannelUnknown"),
    (0x8080_0000, "BadTcpMessageTooLarge"),
    (0x8083_0000, "BadTcpEndpointUrlInvalid"),
    (0x8084_0000, "BadRequestInterrupted"),
    (0x8085_0000, "BadRequestTimeout"),
    (0x8086_0000, "BadSecureChannelClosed"),
    (0x8089_0000, "BadConfigurationError"),
    (0x808a_0000, "BadNotConnected"),
    (0x808b_0000, "BadDeviceFailure"),
    (0x808c_0000, "BadSensorFailure"),
    (0x808d_0000, "BadOutOfService"),
    (0x809b_0000, "BadNoData"),
    (0x80ae_0000, "BadConnectionClosed"),
    (0x80af_0000, "BadInvalidState"),
    (0x80b1_0000, "BadNoDataAvailable"),
    (0x80b8_0000, "BadRequestTooLarge"),
    (0x80b9_0000, "BadResponseTooLarge"),
    (0x80db_0000, "BadTooManyMonitoredItems"),
    (0x810d_0000, "BadCertificateChainIncomplete"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_names() {
        for (code, shown) in [
            (0, "Good"),
            (0x8034_0000, "BadNodeIdUnknown"),
            (0x4090_0401, "UncertainLastUsableValue"),
            (0x0000_0480, "Good (overflow)"),
            (0x0000_0080, "Good"),
            (0x9fff_1234, "Bad 0x9fff0000"),
            (0x4fff_0000, "Uncertain 0x4fff0000"),
            (0x0fff_0000, "Good 0x0fff0000"),
        ] {
            assert_eq!(Status(code).to_string(), shown);
            assert_eq!(Status(code).is_bad(), shown.starts_with("Bad"));
        }
    }
}
