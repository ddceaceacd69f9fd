//! The JSON Schema in the repository is the one that the types say.

use std::fs;
use std::path::Path;

#[test]
fn the_schema_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/journal-v1.schema.json");
    let mut now = serde_json::to_string_pretty(&inquest_journal::schema::document()).unwrap();
    now.push('\n');
    if std::env::var_os("INQUEST_UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "{} is not what the types say; run the tests once with INQUEST_UPDATE=1 and commit the file",
        path.display()
    );
}
