//! Files, directories, space and permissions, in errno's words.

use super::{Rule, Strength::*, rule};
use crate::logs::finding::Cause::*;

/// Space: asked early, because it explains what follows.
pub(super) const SPACE: &[Rule] = &[
    rule(
        "enospc",
        DiskFull,
        Fatal,
        r"(?i)\bno space left on device\b|\[Errno 28\]|\bENOSPC\b|not enough (?:disk )?space\b|insufficient (?:disk |free )?space\b|disk (?:is )?full\b|filesystem (?:is )?full|No more space on disk|not enough free space|write failed:? .*space",
    ),
    rule(
        "edquot",
        DiskFull,
        Fatal,
        r"(?i)\bdisk quota exceeded|\[Errno 122\]|\bEDQUOT\b|quota exceeded (?:on|for) (?:file|volume|disk|group|user|home|/)|file ?system quota|exceeded .{0,20}\b(?:disk|storage|inode) quota|over (?:disk|file) quota|storage quota",
    ),
];

pub(super) const RULES: &[Rule] = &[
    rule("eacces", Permission, Error, r"(?i)\bpermission denied\b|\[Errno 13\]|\bEACCES\b|\boperation not permitted\b|\[Errno 1\]|\bEPERM\b|AccessDeniedException|attempt to write a readonly|unable to locate credentials|could not (?:find|load) (?:default )?credentials|\baccess (?:is |was )?denied\b|(?:^|[\s:])requested access to the resource is denied"),
    rule("http_403", Permission, Error, r"(?i)\bERROR 403\b|\b403 (?:client error|forbidden|GET|POST|PUT|HEAD)\b|\bHTTP(?:/[\d.]+)?[ :]+(?:error |status |code )*403\b|\bstatus(?:[ _]code)?[:= ]+403\b|error code: 40[13]\b|\b401 (?:client error|unauthorized)\b|\bunauthorized\b.*(?:authentication|access|token|required)|authentication required|invalid (?:api key|username or password)|incorrect api key|permission_?denied|(?:gated|restricted) (?:repo|model)|does not have (?:\w+ )?permission|(?:accessdenied|access_denied)\b"),
    rule("estale", Filesystem, Error, r"(?i)\bstale (?:nfs )?file handle\b|\[Errno 116\]|\bESTALE\b|transport endpoint is not connected|\[Errno 107\]").infra(true),
    rule("eio", Filesystem, Error, r"(?i)\binput/output error\b|\[Errno 5\]|\bEIO\b|cannot send after transport endpoint shutdown|\bremote I/O error\b|read-only file system|\[Errno 30\]|structure needs cleaning").infra(true),
    rule("python_cant_open", Filesystem, Fatal, r"can't open file '.*': \[Errno 2\]").lang("python"),
    rule("rscript_cant_open", Filesystem, Fatal, r"Fatal error: cannot open file '|cannot open file '.*': No such file or directory").lang("r"),
    rule("r_connection", Filesystem, Text, r"cannot open the connection\b|cannot open compressed file|cannot change working directory").lang("r"),
    rule("enoent", Filesystem, Error, r"(?i)\bno such (?:file or directory|file|directory|path)\b|\[Errno 2\]|\bENOENT\b|NoSuchFileException|FileNotFoundException"),
    rule("not_a_dir", Filesystem, Text, r"(?i)\bis a directory\b|\bnot a directory\b|\[Errno (?:17|20|21|36|39)\]|file exists\b|directory not empty|file name too long|too many open files|\[Errno 24\]|text file busy|bad file descriptor"),
    rule("emfile", Filesystem, Error, r"(?i)\btoo many open files\b"),
    rule("missing_file", Filesystem, Text, r"(?i)\bmissing (?:input |required |data )?files?\b|\b(?:file|directory|path|folder|repository|input|dataset|checkpoint|fasta|bam|vcf|index)s?\b.{0,120}\b(?:does(?: not|n't) exist|do not exist|not found|could not be found|does(?: not|n't) seem to exist|is missing|was not found|cannot be (?:found|opened|read)|could not be opened|missing)\b|\b(?:can ?not|can't|could not|couldn't|unable to|failed to|failure to|error) (?:find|open(?:ing)?|read(?:ing)?|locate|stat|access|load(?:ing)?)(?: the| input| any| output| data| config\w*)* (?:files?\b|jarfile\b|director|path|folder|input|'?/|\S+\.\w{1,5}\b)|(?i)\b(?:could not|couldn't|can ?not|can't|unable to|fail(?:ed|s)? to|failure to) (?:find or )?(?:open|locate|stat) |\bopen failed\b|\bno .{0,30}\bfiles? (?:was |were )?found\b|could not be (?:read|opened) from\b|(?:^|\s)['\x22][^'\x22]+['\x22] does not exist|(?:could not|cannot|unable to|fail(?:ed|s)? to) (?:retrieve|locate|load) (?:the )?index\b|\bfile (?:not found|cannot be opened)"),
    rule("missing_file_line", Filesystem, Error, r"(?i)(?:^|\b(?:error|fatal|fail(?:ed|ure)?)\b.{0,40})(?:can ?not|can't|could not|couldn't|unable to|failed to) (?:open|find|read|locate|access|stat)(?: the| input| output| data)* (?:files?|director(?:y|ies)|path)\b"),
    rule("fortran_file", Filesystem, Fatal, r"forrtl: severe \((?:29|30|9|43)\)|Fortran runtime error: (?:Cannot open file|File '.*' does not exist|No such file)").lang("fortran"),
    rule("hdf5_open", Filesystem, Text, r"(?i)unable to (?:synchronously )?(?:open|create|lock) file|NetCDF: (?:Unknown file format|HDF error|No such)|file signature not found|truncated file"),
];
