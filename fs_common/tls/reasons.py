"""Why there is no TLS session, in words that say what to do. Pure, but for the names of OpenSSL's errors.

Called by: transports, `files`.
"""

import ssl

TLS_WANTED = (
    "this server speaks TLS only: tell the client the cluster's authority (tls_ca=, -o tls_ca=, EMBERFS_TLS_CA), "
    "a daemon its certificates (tls_dir)"
)
TLS_UNKNOWN = "it does not speak TLS: it has no tls_dir, or this is not the port that is meant"

NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
"""What OpenSSL says of bytes that are no record, by its release."""


def reason_of(error: Exception) -> str:
    """Why there is no session, in words that say what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        # Its codes are those of X509_V_ERR_*.
        match error.verify_code:
            case 9:
                return "its certificate is not valid yet: a clock is wrong, here or where it was made"
            case 10:
                return "its certificate has expired (make another: emberfs certs rotate)"
            case 18 | 19 | 20 | 21:
                return "its certificate is not of the authority in ca.pem: another cluster's, or one of before"
            case 62:
                return "its certificate is of this authority, but of no daemon of a cluster"
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if error.reason in NOT_TLS:
            return TLS_UNKNOWN
        if error.reason in ("TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"):
            return "the other side does not take our certificate for one of its cluster's"
        if error.reason == "SSLV3_ALERT_CERTIFICATE_EXPIRED":
            return "the other side says that our certificate has expired (make another: emberfs certs rotate)"
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
