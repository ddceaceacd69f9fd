//! Names, connections, transfers, TLS, server errors, ports.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

/// Asked before the file system's rules: a URL is not a file.
pub(super) const FIRST: &[Rule] = &[rule(
    "open_url",
    Network,
    Error,
    r"(?i)cannot open url\b|\bHTTP Error 4(?:0[4-8]|1\d)\b|\bERROR 4(?:0[4-8]|1\d): |unable to access 'https?:",
)];

/// MIT Kerberos: the server, then the ticket.
pub(super) const KERBEROS: &[Rule] = &[
    rule("kerberos_server", Network, Error, r"Cannot (?:find|contact any|resolve network address for) KDC\b"),
    rule(
        "kerberos_ticket",
        Permission,
        Error,
        r"(?:Preauthentication failed|Password incorrect|Clock skew too great|Ticket expired|Key table entry not found|Client '.*' not found in Kerberos database|Pre-authentication failed).{0,40}(?:initial credentials|[Kk]erberos|$)|No Kerberos credentials available|No credentials cache found",
    ),
];

pub(super) const RULES: &[Rule] = &[
    rule(
        "dns",
        Network,
        Error,
        r"(?i)\btemporary failure in name resolution\b|\bname or service not known\b|could not resolve (?:host|proxy)|\bunknown ?host\b|UnknownHostException|getaddrinfo (?:failed|ENOTFOUND|EAI_AGAIN)|nodename nor servname provided|no such host\b|failed to resolve\b|name resolution error|NameResolutionError|\[Errno -[235]\]|dns (?:lookup|resolution) (?:failed|error|timed)|No address associated with hostname",
    ),
    rule(
        "connect",
        Network,
        Error,
        r"(?i)\bconnection (?:was |is |has been )?(?:refused|reset|aborted|timed ?out|timeout|closed by (?:remote|foreign) host|failed)\b|\bECONN(?:REFUSED|RESET|ABORTED)\b|\bETIMEDOUT\b|\bEHOSTUNREACH\b|\bENETUNREACH\b|\[Errno (?:101|104|110|111|112|113|32)\]|\bno route to host\b|\bnetwork is unreachable\b|\bfailed to (?:connect|establish a new connection)|\b(?:could not|couldn't|can ?not|can't|unable to) (?:connect|establish (?:a )?connection|reach|contact)\b|failed to connect to|connect(?:ion)? to \S+ (?:port \d+ )?(?:failed|timed out)|\bremote end closed connection\b|\bserver disconnected\b|RemoteDisconnected|MaxRetryError|max retries exceeded with url|NewConnectionError|APIConnectionError|ConnectTimeout|ReadTimeout|APITimeoutError|ClientConnectorError|ServerDisconnectedError|peer closed connection|broken pipe.*(?:socket|connection|server)|kex_exchange_identification|ssh_exchange_identification|host key verification failed|connection lost\b",
    ),
    rule(
        "connection_error",
        Network,
        Soft,
        r"\bConnection error\.?(?:\s|$|['\x22)])|\bConnectionError\b|\b[Rr]equest timed out\b|\b[Nn]etwork(?: connection)? error\b|\b[Cc]onnection broken\b",
    ),
    rule(
        "tls",
        Network,
        Error,
        r"(?i)\bSSL(?:Error|: )|\bSSL_(?:ERROR|connect)|certificate verif(?:y|ication) failed|CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|\bTLS handshake|x509: certificate|unable to get local issuer certificate|SSLHandshakeException|unexpected eof while reading|gnutls_handshake|gnutls_recv|schannel: failed",
    ),
    rule(
        "transfer",
        Network,
        Error,
        r"(?i)\bIncompleteRead\b|ChunkedEncodingError|ContentTooShortError|\bcurl: \(\d+\)|\b(?:early EOF|RPC failed; (?:curl|HTTP|result)|the remote end hung up unexpectedly)|fetch-pack: |transfer closed with|wget: (?:unable|server returned|download)|failed to download|download failed|unable to download|could not (?:download|fetch) |could not retrieve .{0,80}(?:://|\bfrom\b|\bremote\b|\bserver\b)|couldn't download|error (?:while )?downloading|failed to fetch\b|Timeout was reached|Connection timed out after|Operation timed out after|Failed to perform HTTP request|unable to access 'https?:|rsync error: .*(?:timeout|connection|socket|protocol)|Read timed out|read operation timed out|Response ended prematurely|(?:CondaHTTPError|HTTP 000 CONNECTION)",
    ),
    rule(
        "http_5xx",
        Network,
        Error,
        r"(?i)\b50[0234] (?:server error|internal server error|bad gateway|service (?:temporarily )?unavailable|gateway time-?out)|\bHTTP(?:/[\d.]+)?[ :]+(?:error |status |code )*50[0-4]\b|error code: 5[02][0-4]\b|status(?:[ _]code)?[:= ]+50[0-4]\b|\bbad gateway\b|\bgateway time-?out\b|\bservice (?:temporarily )?unavailable\b|internal server error|InternalServerError|ServiceUnavailable(?:Error)?|StatusCode\.UNAVAILABLE|UNAVAILABLE: |503 UNAVAILABLE",
    ),
    rule(
        "http_4xx",
        Network,
        Text,
        r"(?i)\b(?:404|410|408) (?:client error|not found|request timeout|gone)|HTTP ?Error 4\d\d|HTTPError\b|urlopen error|URLError",
    ),
    rule(
        "port",
        Network,
        Error,
        r"(?i)\baddress already in use\b|\[Errno 98\]|\bEADDRINUSE\b|\bport \d+ (?:is )?(?:already )?(?:in use|cannot be opened|not available|occupied)|cannot (?:bind|listen)|(?:failed|unable) to (?:bind|listen)|bind\(\) failed|creation of server socket failed|error binding|Errno 99|cannot assign requested address",
    ),
    rule(
        "generic_timeout",
        Network,
        Text,
        r"(?i)\b(?:request|read|connect|socket|http|api|rpc|grpc)\w*[ _-]?time[sd]?[ -]?out|timed out\b|TimeoutError|DeadlineExceeded|DEADLINE_EXCEEDED|deadline exceeded",
    ),
    rule(
        "eof",
        Network,
        Text,
        r"(?i)\bbroken pipe\b|unexpected EOF|peer (?:closed|reset)|socket (?:closed|error|hang up)|StreamClosed|CommClosedError|connection closed",
    ),
];
