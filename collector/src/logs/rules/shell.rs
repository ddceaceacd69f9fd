//! What shells and small tools say.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

/// A program that cannot be started is the environment's; a script or data
/// file that cannot be opened is the file system's.
pub(super) const FIRST: &[Rule] = &[
    rule("shell_syntax", AppError, Error, r"^[^:]+: (?:line )?\d+: (?:syntax error|Syntax error|unexpected EOF|bad substitution|\S+: bad substitution|\S+: unary operator expected|\[: )|: line \d+: .*\(error token is |: syntax error near unexpected token|syntax error: unexpected end of file$").lang("shell"),
    rule("shell_no_program", Env, Error, r"(?:^|[\s/])[\w.\-/]*: (?:line )?\d+: (?:exec: )?[^\s:'\x22]+: No such file or directory$").lang("shell"),
    rule("shell_program_env", Env, Error, r"^/?(?:usr/)?(?:bin/)?env: '?[^:']+'?: No such file or directory").lang("shell"),
    rule("shell_direct", Env, Error, r"^(?:-?(?:ba|z|k|c|da)?sh|exec|nohup|timeout|time|nice|numactl|stdbuf|taskset|xargs): (?:failed to run command |cannot run command )?'?(?:\./|/)?[\w./\-]+'?: No such file or directory$").lang("shell"),
];

pub(super) const RULES: &[Rule] = &[
    rule("shell_unbound", AppError, Error, r": line \d+: \S+: (?:unbound variable|parameter null or not set|ambiguous redirect|readonly variable|invalid option|numeric argument required)").lang("shell"),
    rule("shell_cd", Filesystem, Soft, r"^\S+: (?:line )?\d+: cd: .*(?:No such file|can't cd to)|: cd: can't cd to ").lang("shell"),
    rule("csh_undefined", AppError, Error, r"^\S+: Undefined variable\.$").lang("shell"),
    rule("argument_value", Validation, Error, r"^\S+: error: argument \S+: (?:invalid|expected)"),
    rule("usage_error", AppError, Error, r"(?i)^(?:\S+: )?(?:error: )?(?:unrecognized (?:option|arguments?)|unknown (?:option|argument)|invalid option|illegal option|the following arguments are required|expected (?:one|at least one) argument|no such option)\b|^\S+: error: (?:unrecognized arguments|the following arguments are required|argument \S+|ambiguous option)|unrecognized arguments: "),
    rule("sed_script", AppError, Error, r"-e expression #\d+, char \d+: "),
    rule("make_syntax", AppError, Error, r"^\S+:\d+: \*\*\* .*\.  Stop\.$"),
    rule("git_conflict", AppError, Error, r"^CONFLICT \(|^Automatic merge failed"),
    rule("linker", AppError, Error, r"\bmultiple definition of \S"),
    rule("collect2", EngineWrapper, Aftermath, r"^collect2: error: ld returned"),
    rule("make_no_rule", Filesystem, Fatal, r"^(?:g|c)?make(?:\[\d+\])?: \*\*\* No rule to make target"),
    rule("shell_signal", AppError, Kill, r": line \d+: +\d+ (?:File size limit exceeded|CPU time limit exceeded|Bad system call|User defined signal [12]|Alarm clock|Hangup|Quit|Trace/breakpoint trap)").lang("shell"),
    rule("make_error", EngineWrapper, Wrapper, r"^(?:g|c)?make(?:\[\d+\])?: \*\*\* .*(?:Error \d+|Stop)"),
    rule("exit_code", EngineWrapper, Wrapper, r"(?i)\b(?:exited|terminated|failed|finished|ended|returned?|exit(?:ing)?) (?:\w+ )?(?:with|a) (?:an? )?(?:error )?(?:non-?zero )?(?:exit )?(?:code|status|value)(?: of)?[:= ]*\(?-?[1-9]\d*\b|returned non-zero exit status [1-9]|\bnon-?zero exit (?:code|status)\b|\bexit (?:code|status) ?[:=]? ?(?:[1-9]\d{0,2})\b"),
];
