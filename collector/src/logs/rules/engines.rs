//! Workflow engines, pools and launchers that report a task's failure.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

/// Asked before the rules on kills, whose words these texts hold.
pub(super) const FIRST: &[Rule] = &[
    // Ray lists every reason it can think of.
    rule("ray_guess", EngineWrapper, Aftermath, r"There are some potential root causes|Worker exit detail: "),
    // torchrun's summary of the first failure names the signal.
    rule("torchrun_sigkill", Oom, Error, r"traceback : Signal 9 \(SIGKILL\)"),
    rule("torchrun_signal", Crash, Error, r"traceback : Signal (?:4|6|7|8|11) \(SIG"),
];

pub(super) const RULES: &[Rule] = &[
    // Their own errors.
    rule("snakemake_missing", Filesystem, Fatal, r"^MissingInputException|^Missing input files for rule|^Missing files after \d+ seconds|Job \S* ?completed successfully, but some output files are missing|MissingOutputException"),
    rule("snakemake_own", AppError, Fatal, r"^(?:\w+Exception in (?:rule|line|file) |(?:Missing(?:Input|Output|Rule)|AmbiguousRule|CyclicGraph|IncompleteFiles|ProtectedOutput|ChildIO|Lock|Wildcard|RuleException|CreateRule|InputFunction|NoRules|UnknownRule|Workflow|PeriodicWildcard|Directory)\w*(?:Exception|Error)(?: in|:))"),
    rule("nextflow_missing_output", EngineWrapper, Wrapper, r"Missing output file\(s\) `"),
    rule("nextflow_script", AppError, Error, r"^(?:ERROR ~ )?(?:Script compilation error|Unknown (?:method invocation|process directive|configuration profile)|No such (?:variable|property): |Missing process or function|No signature of method: |Not a valid (?:path|project) |Cannot find (?:a component|matching process)|Process `.*` (?:declares|input|has been)|Module compilation error|Unexpected input:|Invalid (?:method|include|declaration))").lang("java"),
    // Only the wrapper speaks.
    rule("nextflow_process", EngineWrapper, Wrapper, r"Process `[^`]*` terminated (?:with an error exit status|for an unknown reason)|Process exceeded running time limit|Error submitting process|Execution (?:cancelled|terminated) -- |Session aborted -- Cause|The exit status of the task that caused the workflow execution to fail|Pipeline failed|Execution aborted due to"),
    rule("snakemake_rule", EngineWrapper, Wrapper, r"^\s*(?:\S+ )*Error in (?:group )?(?:rule|checkpoint|job) [\w]+|Error executing (?:rule|group job)|Exiting because a job execution failed|^CalledProcessError in |At least one job did not complete successfully|Job failed, going on with independent jobs|Error in rule|WorkflowError:\s*$|Cluster job failed|status_attempts|SLURM-job '?\d+'? failed"),
    rule("torchrun", EngineWrapper, Wrapper, r"\bChildFailedError\b|ProcessRaisedException|ProcessExitedException|torch\.distributed\.elastic.*failed \(exitcode|\bfailed \(exitcode: -?\d+\) local_rank|^\s*exitcode\s*: [1-9]|\.py FAILED$|\bFAILED$|Sending process \d+ closing signal|Signal \d+ \(SIGTERM\)|SignalException|\[ERROR\] \[launch\.py|Killing subprocess \d+|returned non-zero exit status|exits with return code = [1-9-]"),
    rule("r_node_error", AppError, Error, r"\b(?:one node|\d+ nodes) produced (?:an )?errors?[:;]").lang("r").carries(),
    rule("pool", EngineWrapper, Wrapper, r"BrokenProcessPool|BrokenExecutor|TerminatedWorkerError|KilledWorker|WorkerLost(?:Error)?|ManagerLost|WorkerCrashedError|ActorDiedError|RayActorError|WorkerDiedError|NodeDiedError|ObjectLostError|RaySystemError|LocalRayletDiedError|DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed|exited unexpectedly)|A worker process managed by the executor was unexpectedly terminated|A process in the process pool was terminated abruptly|A child process terminated abruptly|Worker .{0,60}(?:died|terminated|exited) unexpectedly|died unexpectedly|\d+ workers died|worker process (?:died|crashed|was terminated|exited)|The actor (?:died|is dead)|A worker died or was killed|Restarting worker|Worker exceeded .{0,20}restarts|Engine core (?:initialization|proc \S+) (?:failed|died)|EngineDeadError|Engine process failed to start|EngineCore .*(?:encountered a fatal error|died)|RemoteException|mclapply|parallel job did not deliver|all scheduled cores encountered errors|scheduled core\(s\) .* encountered error|Failed to retrieve the (?:value|result) of|FutureError|Unexpected result \(of class|MultisessionFuture|the localhost worker is no longer alive|error reading from connection|Error in unserialize"),
    rule("parsl", EngineWrapper, Wrapper, r"\bDependencyError\b|Dependency failure for task|\bAppException\b|\bBashExitFailure\b|\bMissingOutputs\b|JobError\b|BadStateException|Execution failed on|Task \S+ (?:failed|has failed)\b|Job (?:\S+ )?failed\b|jobs? failed\b.*"),
    rule("cromwell", EngineWrapper, Wrapper, r"Workflow \S+ (?:failed|transitioned to state Failed)|Job \S+:\S+:\S+ exited with return code|WorkflowFailed|checking for failed|failed \(during Executing\w*State\)|CWL .*permanentFail|\bpermanentFail\b|toil.*(?:failed|FailedJobs)|FailedJobsException|Job \S+ has failed|WARNING: Job .* failed"),
    rule("airflow", EngineWrapper, Wrapper, r"Task failed with exception|Marking task as (?:FAILED|UP_FOR_RETRY)|Task exited with return code [1-9]|Command exited with return code [1-9]"),
    rule("subprocess", EngineWrapper, Wrapper, r"CalledProcessError|subprocess\.CalledProcess|Command '.*' returned non-zero|command (?:exited|failed) with|SubprocessError|ChildProcessError|FailedCommand|Error running command|Command failed|child process (?:failed|exited)"),
    rule("nextflow_executing", EngineWrapper, Aftermath, r"Error executing process > "),
    rule("snakemake_remark", EngineWrapper, Aftermath, r"one of the commands exited with non-zero exit code"),
    rule("execution_halted", EngineWrapper, Aftermath, r"^\s*(?:Execution halted|Calls: )"),
    rule("self_test", AppError, Error, r"^=+ (?:\d+ \w+, )*\d+ failed\b.* in |^FAILED \S+::|^\s*\d+ tests? failed\b|\bTest(?:s)? FAILED\b|^FAIL(?:ED)?\b -- |^FAIL: \w+ \(|\bself-?test failed|^\[  FAILED  \]|benchmark (?:check )?failed|^not ok \d+"),
];
