//! Python: what the type of an exception says when its message says nothing.

use super::Strength;
use crate::logs::finding::Cause;

/// Types that are always about the code itself, whatever words the message
/// holds.
const PROGRAMMING: &[&str] = &[
    "NameError",
    "UnboundLocalError",
    "SyntaxError",
    "IndentationError",
    "TabError",
    "AttributeError",
    "IndexError",
    "KeyError",
    "ZeroDivisionError",
    "RecursionError",
    "StopIteration",
    "NotImplementedError",
    "InstantiationException",
];

/// True when the type alone decides that this is an error of the code.
pub(crate) fn programming(kind: &str) -> bool {
    PROGRAMMING.contains(&kind)
}

/// The cause that an exception's type names, asked when its message matches
/// no rule. Types of the standard library and of widely used packages.
pub(crate) fn by_type(kind: &str) -> Option<(Cause, Option<bool>)> {
    Some(match kind {
        "MemoryError" | "ArrayMemoryError" => (Cause::Oom, None),
        "OutOfMemoryError" => (Cause::GpuOom, None),
        "ResourceExhaustedError" => (Cause::GpuOom, None),
        "ModuleNotFoundError"
        | "ImportError"
        | "DistributionNotFound"
        | "PackageNotFoundError"
        | "NoClassDefFoundError"
        | "ClassNotFoundException"
        | "UnsatisfiedLinkError"
        | "NoSuchMethodError"
        | "UnsupportedClassVersionError" => (Cause::Env, None),
        "FileNotFoundError"
        | "NotADirectoryError"
        | "IsADirectoryError"
        | "FileExistsError"
        | "NoSuchFileException"
        | "FileNotFoundException"
        | "NoSuchKey"
        | "NoSuchBucket" => (Cause::Filesystem, None),
        "PermissionError"
        | "AuthenticationError"
        | "PermissionDeniedError"
        | "AccessDeniedException"
        | "NoCredentialsError"
        | "Forbidden"
        | "Unauthorized"
        | "GatedRepoError" => (Cause::Permission, None),
        "ConnectionError"
        | "ConnectionRefusedError"
        | "ConnectionResetError"
        | "ConnectionAbortedError"
        | "BrokenPipeError"
        | "ConnectTimeout"
        | "ReadTimeout"
        | "ReadTimeoutError"
        | "ConnectTimeoutError"
        | "MaxRetryError"
        | "NewConnectionError"
        | "ProtocolError"
        | "SSLError"
        | "SSLCertVerificationError"
        | "gaierror"
        | "URLError"
        | "HTTPError"
        | "ChunkedEncodingError"
        | "IncompleteRead"
        | "RemoteDisconnected"
        | "ProxyError"
        | "ConnectError"
        | "RemoteProtocolError"
        | "APIConnectionError"
        | "APITimeoutError"
        | "ClientConnectorError"
        | "ServerDisconnectedError"
        | "ClientPayloadError"
        | "CommClosedError"
        | "StreamClosedError"
        | "UnknownHostException"
        | "ConnectException"
        | "SocketTimeoutException"
        | "SocketException"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableError"
        | "EndpointConnectionError"
        | "LocalEntryNotFoundError"
        | "ContentTooShortError"
        | "herror"
        | "ServerError"
        | "DeadlineExceeded" => (Cause::Network, None),
        "RateLimitError"
        | "ResourceExhausted"
        | "TooManyRequests"
        | "ThrottlingException"
        | "OverloadedError" => (Cause::RateLimit, None),
        "JSONDecodeError"
        | "OutputParserException"
        | "ParserError"
        | "ScannerError"
        | "ParseError"
        | "XMLSyntaxError"
        | "EmptyDataError"
        | "UnpicklingError"
        | "UnicodeDecodeError"
        | "ArrowInvalid"
        | "NotJSONError"
        | "TomlDecodeError"
        | "TOMLDecodeError"
        | "NumberFormatException"
        | "BadZipFile"
        | "BadGzipFile"
        | "ReadError"
        | "MissingSectionHeaderError"
        | "JsonParseException"
        | "JsonSyntaxException"
        | "ParseException" => (Cause::ParseError, None),
        "ValidationError"
        | "SchemaError"
        | "ConfigError"
        | "ConfigurationError"
        | "ConfigKeyError"
        | "NoSectionError"
        | "NoOptionError"
        | "MissingMandatoryValue"
        | "InvalidParameterError"
        | "MissingConfigException"
        | "ConfigAttributeError"
        | "BadRequestError"
        | "UnprocessableEntityError"
        | "InvalidRequestError" => (Cause::Validation, None),
        "LinAlgError"
        | "ConvergenceError"
        | "NoConvergence"
        | "ArpackNoConvergence"
        | "SCFError"
        | "PosDefException"
        | "SingularException" => (Cause::Convergence, None),
        "TimeoutExpired" | "TIMEOUT" => (Cause::Hang, None),
        "GurobiError" => (Cause::License, None),
        "DistBackendError" | "DistNetworkError" => (Cause::Mpi, None),
        _ => return by_ending(kind),
    })
}

/// The cause that the last words of a type's name tell, whatever library it is
/// of.
fn by_ending(kind: &str) -> Option<(Cause, Option<bool>)> {
    const ENDINGS: &[(&str, Cause)] = &[
        ("Format", Cause::ParseError),
        ("Parse", Cause::ParseError),
        ("Parser", Cause::ParseError),
        ("Parsing", Cause::ParseError),
        ("Decode", Cause::ParseError),
        ("Connect", Cause::Network),
        ("Connection", Cause::Network),
        ("Setup", Cause::Validation),
        ("Config", Cause::Validation),
        ("Configuration", Cause::Validation),
        ("Validation", Cause::Validation),
        ("Parameter", Cause::Validation),
        ("Convergence", Cause::Convergence),
        ("License", Cause::License),
        ("RateLimit", Cause::RateLimit),
        ("Permission", Cause::Permission),
        ("PermissionDenied", Cause::Permission),
        ("AccessDenied", Cause::Permission),
        ("Authentication", Cause::Permission),
        ("Authorization", Cause::Permission),
        ("OutOfMemory", Cause::Oom),
    ];
    let name = kind.strip_suffix("Error").or_else(|| kind.strip_suffix("Exception"))?;
    ENDINGS.iter().find(|(end, _)| name.ends_with(end)).map(|&(_, cause)| (cause, None))
}

/// Exceptions that only say that something else failed.
pub(crate) fn wrapper(kind: &str) -> bool {
    matches!(
        kind,
        "ChildFailedError"
            | "ProcessRaisedException"
            | "ProcessExitedException"
            | "CalledProcessError"
            | "BrokenProcessPool"
            | "BrokenExecutor"
            | "TerminatedWorkerError"
            | "KilledWorker"
            | "WorkerLost"
            | "WorkerLostError"
            | "ManagerLost"
            | "DependencyError"
            | "BashExitFailure"
            | "RemoteException"
            | "ActorDiedError"
            | "RayActorError"
            | "WorkerCrashedError"
            | "EngineDeadError"
            | "SignalException"
            | "RayTaskError"
            | "ExceptionGroup"
            | "BaseExceptionGroup"
            | "ProcessFailedException"
            | "CompletionException"
            | "ExecutionException"
            | "InvocationTargetException"
            | "UndeclaredThrowableException"
            | "SystemExit"
            | "RetryError"
            | "AppException"
            | "FailedJobsException"
            | "TaskFailedException"
            | "DTaskFailedException"
            | "CompositeException"
            | "CapturedException"
    )
}

/// Exceptions that stand for an interrupt by a person.
pub(crate) fn interrupt(kind: &str) -> bool {
    matches!(kind, "KeyboardInterrupt" | "InterruptException" | "InterruptedException")
}

/// Strength of an exception that ends a traceback, by the level of the lines.
pub(crate) fn strength(kind: &str, traceback: bool) -> Strength {
    if interrupt(kind) {
        Strength::Cancel
    } else if wrapper(kind) {
        Strength::Wrapper
    } else if traceback {
        Strength::Fatal
    } else {
        Strength::Error
    }
}

/// The type of an exception whose message stands without it, by CPython's own
/// wording.
pub(crate) fn worded(text: &str) -> Option<&'static str> {
    const WORDINGS: &[(&str, &str)] = &[
        ("[Errno 2] No such file", "FileNotFoundError"),
        ("[Errno 13]", "PermissionError"),
        ("[Errno 17]", "FileExistsError"),
        ("[Errno 20]", "NotADirectoryError"),
        ("[Errno 21]", "IsADirectoryError"),
        ("[Errno 32]", "BrokenPipeError"),
        ("[Errno 104]", "ConnectionResetError"),
        ("[Errno 110]", "TimeoutError"),
        ("[Errno 111]", "ConnectionRefusedError"),
        ("[Errno 28]", "OSError"),
        ("[Errno 122]", "OSError"),
        (" object has no attribute '", "AttributeError"),
        (" is not defined", "NameError"),
        ("unsupported operand type(s) for", "TypeError"),
        ("list index out of range", "IndexError"),
        ("division by zero", "ZeroDivisionError"),
        ("No module named '", "ModuleNotFoundError"),
        ("cannot import name '", "ImportError"),
        ("invalid literal for int() with base", "ValueError"),
        ("could not convert string to float", "ValueError"),
    ];
    // An interpreter that cannot open its script has raised nothing.
    if text.contains("can't open file") {
        return None;
    }
    WORDINGS.iter().find(|(words, _)| text.contains(words)).map(|(_, kind)| *kind)
}
