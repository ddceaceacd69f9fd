//! Remote services, language models before all: credit, rates, empty answers.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

/// Credit: asked before rates, because providers answer both with 429.
pub(super) const FIRST: &[Rule] = &[rule(
    "insufficient_quota",
    Billing,
    Error,
    r"(?i)insufficient[_ ](?:quota|funds|credits?|balance)|exceeded your current quota|credit balance is too low|billing[_ ](?:hard[_ ]limit|not[_ ]active|disabled|details)|\bpayment required\b|\b402 (?:client error|payment)|error code: 402|HTTP(?:/[\d.]+)?[ :]+402\b|status(?:[ _]code)?[:= ]+402\b|out of credits|no (?:remaining )?credits? (?:left|remaining)|credits? (?:exhausted|depleted|have run out)|account is not active|prepayment credits|spending limit|monthly (?:included )?credits|budget (?:has been )?exceeded|BudgetExceeded|enable billing|requires more credits|arrearage|account .{0,20}overdue|余额不足",
)];

pub(super) const RULES: &[Rule] = &[
    rule(
        "http_429",
        RateLimit,
        Soft,
        r"(?i)\b429\b.{0,40}\b(?:too many|resource|rate|client error|toomanyrequests)|\bHTTP(?:/[\d.]+)?[ :]+(?:error |status |code )*429\b|error code: 429\b|status(?:[ _]code)?['\x22]?[:= ]+429\b|code['\x22]?: ?429\b|\btoo many requests\b|\btoomanyrequests\b|TooManyRequests",
    ),
    rule(
        "rate_limit",
        RateLimit,
        Soft,
        r"(?i)\brate[_ -]?limit(?:ed|_exceeded|_error|s? (?:was |been )?(?:exceeded|reached|hit|error))|\bRateLimitError\b|\brequests? rate (?:is )?too (?:high|large)|(?:exceeded|reached) (?:your |the |its )?(?:\w+ )?(?:rate limit|pull rate limit|request limit|requests per)|reached your (?:unauthenticated )?pull rate limit|pull rate limit|quota exceeded for (?:quota )?metric|RESOURCE_EXHAUSTED.*(?:quota|rate|exhausted)|ResourceExhausted: 429|ThrottlingException|\bThrottling\b|ThrottledException|SlowDown\b|(?:exceed|reach)\w* .{0,60}(?:tokens|requests) per (?:minute|day)",
    ),
    rule(
        "overloaded",
        RateLimit,
        Soft,
        r"(?i)\boverloaded_error\b|\b529\b.{0,20}(?:overloaded|<none>|error|site)|error code: 529|HTTP(?:/[\d.]+)?[ :]+529|\b(?:model|server|service|engine|api) (?:is )?(?:currently )?overloaded|'message': 'Overloaded'|\bOverloadedError\b|at capacity\b",
    ),
    rule(
        "empty_content",
        EmptyResponse,
        Error,
        r"(?i)\b(?:returned|received|got|produced|generated|was|is|with)\b.{0,40}\b(?:an? )?(?:empty|blank|no) (?:response|content|completion|output|answer|reply|message|text|candidates?|choices|result from (?:the )?(?:model|llm))|\b(?:empty|blank) (?:response|content|completion|reply|answer)(?: string)?\b.{0,60}\b(?:from|by|received|returned|model|llm|api)|no generation chunks were returned|(?:requires|contain) .{0,20}valid `?(?:part|candidate)|quick accessor (?:requires|only works)|response\.text.{0,30}quick accessor|(?:model|llm|api|provider|gemini|openai)\b.{0,40}\b(?:returned|response|gave|produced)\b.{0,20}\b(?:nothing|none|null|empty|blank|no (?:content|text|choices|candidates|output))|model output must contain either output text or tool calls|no (?:choices|candidates) (?:were )?(?:returned|in|found)|empty model output|finish_?reason.{0,30}(?:SAFETY|RECITATION|content_filter)|content is (?:empty|none)\b|empty content",
    ),
    rule(
        "response_is_none",
        EmptyResponse,
        Error,
        r"(?i)^(?:\W*\w*error\W+)?(?:\w+ )?(?:llm|model|api|agent|completion)\b.{0,20}response (?:is|was) (?:empty|none|null|blank)|\bempty (?:llm|model|api) (?:response|output)|\bresponse (?:was|is) empty\b|\bempty response\b",
    ),
];
