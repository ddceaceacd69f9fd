//! Licence servers, files and features.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

pub(super) const RULES: &[Rule] = &[
    rule(
        "flexlm",
        License,
        Fatal,
        r"(?i)\blmgrd\b.{0,60}(?:down|not running|error|fail)|cannot connect to license server|licen[sc]e server (?:machine |system )?(?:is |does |not |could |cannot |unavailable|down|unreachable|error|\S+ (?:is )?(?:down|not))|could not (?:connect to|contact|reach) (?:any |the |a )?licen[sc]e|Licensed number of users already reached|(?:no|invalid) such feature exists|no such feature exists|feature has expired|licen[sc]e (?:has |is |was )?(?:expired|invalid|denied|rejected|not (?:available|found|valid))",
    ),
    rule(
        "licence_checkout",
        License,
        Fatal,
        r"(?i)(?:failed|unable|cannot|could not|not able|failure) (?:to |in )?(?:check(?:ing)?[- ]?out|obtain(?:ing)?|acquire|get|find|verify|validate|read|open|locate|initialize|retrieve) (?:an? |the |any )?(?:\w+ ){0,3}licen[sc]es?\b|no (?:valid |available |more |free |suitable )*licen[sc]es? (?:is |are |was |were )?(?:available|found|left|file|key|server|could|for)|all licen[sc]es (?:are )?(?:in use|reserved|taken)|licen[sc]e file (?:in use )?(?:is )?(?:invalid|not found|missing|does not|could not|cannot|error|syntax)|invalid licen[sc]e|licen[sc]e (?:error|failure|problem)\b|Licensing (?:failure|checkout)|not licensed (?:to|for)|GurobiError: .*(?:[Ll]icense|HostID|Model too large)|No Gurobi license|HostID mismatch|Model too large for size-limited|Single-use license|\bERROR 10009\b|Request denied: license|gurobi\.lic|CPLEX Error +(?:32\d\d\d|1016)|Mosek.*licen|MSK_RES_ERR_LICENSE|rlm: |RLM .{0,40}error|Failed in licence|Unable to check out a|Sentinel .{0,30}(?:key|protection) (?:not found|error)|dongle not found|token .{0,20}licen[sc]e.{0,30}(?:not available|unavailable)|Abaqus.{0,40}licen[sc]e|licen[sc]e (?:could not be|cannot be|can not be|was not) (?:obtained|checked|found|acquired|validated|verified)",
    ),
    // FlexNet's own sentences, which stand between a headline and a number.
    rule(
        "flexnet_reason",
        License,
        Fatal,
        r"(?i)hostid of this system does not match|no server for this feature|no socket connection to license server|invalid \(inconsistent\) license key|invalid license file syntax|no SERVER lines in license file|cannot find SERVER host name|cannot (?:read|write) data (?:from|to) license server|license server (?:system )?does not support this|feature start date is in the future|license file in use is invalid|invalid date format in license|does not exist in the licensing pool|check that the network license manager has been started|unable to connect to the license server",
    ),
    rule(
        "flexnet_number",
        License,
        Error,
        r"(?i)\bFlex(?:Net|lm)(?: Licensing)? error:? *-?\d|licen[sc]ing error:? *-?\d+|License Manager Error -?\d+",
    ),
    rule(
        "licence_headline",
        License,
        Weak,
        r"(?i)\blicen[sc]e check-?out (?:failed|error)|LICENSE MANAGER ERROR",
    ),
    rule(
        "licence_text",
        License,
        Text,
        r"(?i)\blicen[sc]e\b.{0,60}\b(?:fail|error|denied|expired|unavailable|not)",
    ),
];
