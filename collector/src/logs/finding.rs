//! What a log says about a failure.

use serde::Serialize;

/// The kind of root cause, as an expert would label the line that is quoted.
///
/// Finer than [`Class`]: a cause says what to do, a class is for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Host memory: a cgroup or kernel kill, or an allocation that failed.
    Oom,
    /// An allocation on an accelerator failed.
    GpuOom,
    /// The scheduler ended the job at its wall-time limit.
    Timeout,
    /// Someone cancelled the job.
    Cancelled,
    /// Other work took the job's place.
    Preempted,
    /// A node died, was lost or did not boot.
    NodeFail,
    /// A native fault or abort, on the host or in a GPU kernel.
    Crash,
    /// An error of the program that fits nothing more specific.
    AppError,
    /// The communication layer was the first to fail.
    Mpi,
    /// GPU hardware, driver, visibility or compatibility.
    GpuHw,
    /// A program, module, package or library is missing or does not fit.
    Env,
    /// A file or directory is missing or unreadable, or its server failed.
    Filesystem,
    /// No space or quota left.
    DiskFull,
    /// Permission denied.
    Permission,
    /// A service refused for load or request rate.
    RateLimit,
    /// Name resolution, connections, transfers, server errors, ports.
    Network,
    /// The account at a service has no credit left.
    Billing,
    /// Data from a program, service or model cannot be parsed.
    ParseError,
    /// A model or service answered with nothing usable.
    EmptyResponse,
    /// A licence is not available.
    License,
    /// The container runtime or the image.
    Container,
    /// The scheduler or launcher rejected the job or could not start it.
    Launch,
    /// A check of input, configuration or data said no.
    Validation,
    /// A numerical method failed.
    Convergence,
    /// A watchdog or a collective ran into its time-out.
    Hang,
    /// Only a wrapper's message is visible.
    EngineWrapper,
    /// Nothing failed.
    None,
}

impl Cause {
    /// Every cause, in the order of declaration.
    pub const ALL: [Cause; 27] = [
        Cause::Oom,
        Cause::GpuOom,
        Cause::Timeout,
        Cause::Cancelled,
        Cause::Preempted,
        Cause::NodeFail,
        Cause::Crash,
        Cause::AppError,
        Cause::Mpi,
        Cause::GpuHw,
        Cause::Env,
        Cause::Filesystem,
        Cause::DiskFull,
        Cause::Permission,
        Cause::RateLimit,
        Cause::Network,
        Cause::Billing,
        Cause::ParseError,
        Cause::EmptyResponse,
        Cause::License,
        Cause::Container,
        Cause::Launch,
        Cause::Validation,
        Cause::Convergence,
        Cause::Hang,
        Cause::EngineWrapper,
        Cause::None,
    ];

    /// The label as it is written in reports and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Oom => "oom",
            Cause::GpuOom => "gpu_oom",
            Cause::Timeout => "timeout",
            Cause::Cancelled => "cancelled",
            Cause::Preempted => "preempted",
            Cause::NodeFail => "node_fail",
            Cause::Crash => "crash",
            Cause::AppError => "app_error",
            Cause::Mpi => "mpi",
            Cause::GpuHw => "gpu_hw",
            Cause::Env => "env",
            Cause::Filesystem => "filesystem",
            Cause::DiskFull => "disk_full",
            Cause::Permission => "permission",
            Cause::RateLimit => "rate_limit",
            Cause::Network => "network",
            Cause::Billing => "billing",
            Cause::ParseError => "parse_error",
            Cause::EmptyResponse => "empty_response",
            Cause::License => "license",
            Cause::Container => "container",
            Cause::Launch => "launch",
            Cause::Validation => "validation",
            Cause::Convergence => "convergence",
            Cause::Hang => "hang",
            Cause::EngineWrapper => "engine_wrapper",
            Cause::None => "none",
        }
    }

    /// Whether the unchanged job could succeed elsewhere or later, when the
    /// excerpt says nothing more about it.
    pub fn infra_by_default(self) -> bool {
        matches!(
            self,
            Cause::Preempted
                | Cause::NodeFail
                | Cause::Mpi
                | Cause::GpuHw
                | Cause::RateLimit
                | Cause::Network
                | Cause::Billing
                | Cause::EmptyResponse
                | Cause::License
        )
    }

    /// The class for counting. Causes that may lie on either side of the
    /// fence go where `infra` says.
    pub fn class(self, infra: bool) -> Class {
        match self {
            Cause::None => Class::None,
            Cause::Oom | Cause::GpuOom => Class::Oom,
            Cause::Timeout => Class::Timeout,
            Cause::Cancelled => Class::Cancelled,
            Cause::Preempted => Class::Preempted,
            Cause::Crash => Class::Crash,
            Cause::Validation => Class::Validation,
            Cause::EngineWrapper => Class::Unknown,
            Cause::NodeFail => Class::Infra,
            _ if infra => Class::Infra,
            _ => Class::AppError,
        }
    }
}

/// The class of a verdict, for counting over many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Memory, of the host or of an accelerator.
    Oom,
    /// The wall-time limit.
    Timeout,
    /// The program, its input or its environment.
    AppError,
    /// A native fault.
    Crash,
    /// Nodes, fabric, services: not the job's fault.
    Infra,
    /// A check said no.
    Validation,
    /// Someone cancelled it.
    Cancelled,
    /// Other work took its place.
    Preempted,
    /// It failed, and the log does not say why.
    Unknown,
    /// Nothing failed.
    None,
}

/// How sure the reading of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// A general sign of an error, or a conclusion from what is missing.
    Low,
    /// A known convention, but jobs survive it often.
    Medium,
    /// A tool's or a language's own statement that it failed for this reason.
    High,
}

/// The root cause that a log shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of failure it is; [`Cause::None`] when nothing failed.
    pub cause: Cause,
    /// The class for counting.
    pub class: Class,
    /// The line that says it, as it stands in the log (terminal codes removed,
    /// at most [`super::text::MAX_LINE`] bytes).
    pub root_cause: Option<String>,
    /// Where that line is, counted from 1.
    pub line_number: Option<u64>,
    /// Unqualified name of the exception at the root.
    pub exception_type: Option<String>,
    /// The wrapper, last line or later consequence that hides the root cause.
    pub masked_by: Option<String>,
    /// True when the unchanged job could succeed on other or healed
    /// infrastructure.
    pub infra: bool,
    /// How sure this reading is.
    pub confidence: Confidence,
    /// Language of the failing code, where the way of reporting tells.
    pub language: Option<&'static str>,
    /// The exceptions that led from the root to what the log ends with,
    /// innermost first; empty when there is no chain.
    pub chain: Vec<String>,
    /// Name of the rule or parser that decided, for people who check rules.
    pub rule: &'static str,
}

impl Finding {
    /// Nothing in the log says that something failed.
    pub fn nothing() -> Self {
        Finding {
            cause: Cause::None,
            class: Class::None,
            root_cause: None,
            line_number: None,
            exception_type: None,
            masked_by: None,
            infra: false,
            confidence: Confidence::Medium,
            language: None,
            chain: Vec::new(),
            rule: "none",
        }
    }
}
