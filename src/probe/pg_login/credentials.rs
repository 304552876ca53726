//! Whose name and password to log in with: `DATABASE_URL`, or an entry of the password file (PostgreSQL documentation,
//! libpq, "The Password File"). Only for the very server that is looked at; never shown.

use crate::check::clean;
use crate::encoding::percent_decoded;
use crate::vantage::{Transport, Vantage, expand_home};
use reqwest::Url;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Most bytes of a password file.
const MOST_BYTES: u64 = 1 << 20;

/// A login.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Where it is from: `DATABASE_URL` or `pgpass`.
    pub(super) source: &'static str,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.user, self.source)
    }
}

/// A server as a login names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
}

/// The login for a server; the error says why there is none, without any part of one.
pub(super) fn find(vantage: &Vantage, server: Server<'_>) -> Result<Credentials, String> {
    if let Some(source) = &vantage.files.pgpass {
        return of_pgpass(&source.read()?, server).ok_or_else(|| no_entry(server));
    }
    if vantage.transport == Transport::Twin {
        return Err("this host of the twin has no password file".to_owned());
    }
    let url = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let path = std::env::var_os("PGPASSFILE").map_or_else(|| expand_home("~/.pgpass"), PathBuf::from);
    of_this_machine(url.as_deref(), &path, server)
}

fn of_this_machine(url: Option<&str>, path: &Path, server: Server<'_>) -> Result<Credentials, String> {
    let of_url = url.map(|url| of_url(url, server));
    if let Some(Ok(found)) = of_url {
        return Ok(found);
    }
    let of_file = read_pgpass(path).and_then(|text| of_pgpass(&text, server).ok_or_else(|| no_entry(server)));
    of_file.map_err(|file| match of_url {
        Some(Err(why)) => format!("DATABASE_URL: {why}; {file}"),
        _ => format!("DATABASE_URL is not set; {file}"),
    })
}

fn no_entry(server: Server<'_>) -> String {
    format!("the password file has no entry with a user for {}:{}", clean(server.host, 253), server.port)
}

/// The URL's text stays out of every message.
fn of_url(text: &str, server: Server<'_>) -> Result<Credentials, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is not a URL")?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err("it is not of PostgreSQL");
    }
    let host = url.host_str().ok_or("it has no host")?;
    if !host.eq_ignore_ascii_case(server.host) || url.port().unwrap_or(5432) != server.port {
        return Err("it is for another server");
    }
    let user = decoded(url.username()).filter(|user| !user.is_empty()).ok_or("it has no user")?;
    let password = url.password().and_then(decoded).ok_or("it has no password")?;
    // libpq's rule: without a database its name is the user's.
    let database = decoded(url.path().trim_start_matches('/')).filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
    Ok(Credentials { source: "DATABASE_URL", user, password, database })
}

/// Percent-decodes; `None` if the result is no text.
fn decoded(text: &str) -> Option<String> {
    String::from_utf8(percent_decoded(text)).ok()
}

fn read_pgpass(path: &Path) -> Result<String, String> {
    let name = path.display();
    let metadata = std::fs::metadata(path).map_err(|_| format!("there is no password file {name}"))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!("{name} is open to group or others: libpq ignores such a file, and so does this"));
    }
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(format!("{name} is no password file"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {name}: {e}"))
}

/// The first line that matches decides, as in libpq.
fn of_pgpass(text: &str, server: Server<'_>) -> Option<Credentials> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(fields).find_map(|[host, port, database, user, password]| {
        let matches = (host == "*" || host.eq_ignore_ascii_case(server.host)) && (port == "*" || port == server.port.to_string());
        // Without a user the line says nothing about whose password it is.
        let database = if database == "*" { "postgres".to_owned() } else { database };
        (matches && user != "*" && !user.is_empty()).then_some(Credentials { source: "pgpass", user, password, database })
    })
}

/// `host:port:database:user:password`, with `\:` and `\\` for the characters themselves.
fn fields(line: &str) -> Option<[String; 5]> {
    let (mut fields, mut n) = (<[String; 5]>::default(), 0);
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => fields[n].push(characters.next()?),
            ':' if n < 4 => n += 1,
            c => fields[n].push(c),
        }
    }
    (n == 4).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Server<'_> = Server { host: "db.example", port: 5432 };

    #[test]
    fn a_url_is_taken_for_its_own_server_only() {
        let found = of_url("postgres://me:s%3Acr%25et@DB.example/app?sslmode=require", SERVER).unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str(), found.database.as_str()), ("me", "s:cr%et", "app"));
        assert_eq!(of_url("postgresql://me:x@db.example:5432", SERVER).unwrap().database, "me");
        for (url, why) in [
            ("postgres://me:s3cret@other.example/app", "it is for another server"),
            ("postgres://me:s3cret@db.example:6432/app", "it is for another server"),
            ("postgres://me@db.example/app", "it has no password"),
            ("postgres://db.example/app", "it has no user"),
            ("mysql://me:s3cret@db.example/app", "it is not of PostgreSQL"),
            ("s3cret", "it is not a URL"),
        ] {
            assert_eq!(of_url(url, SERVER), Err(why), "{url}");
        }
    }

    #[test]
    fn a_password_file_is_read_as_libpq_reads_it() {
        let text = "# db.example:5432:x:no:no\nother:*:*:no:no\ndb.example:6432:*:no:no\nbroken\n*:5432:*:*:no\n\
                    db.example:*:a\\:b:me:p\\\\w:d\\:x\ndb.example:*:*:late:no\n";
        let found = of_pgpass(text, SERVER).unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str(), found.database.as_str()), ("me", "p\\w:d:x", "a:b"));
        assert_eq!(of_pgpass("*:*:*:me:x", SERVER).unwrap().database, "postgres");
        assert_eq!(of_pgpass("", SERVER), None);
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_secret_is() {
        let none = Path::new("/nonexistent/pgpass");
        let why = of_this_machine(Some("postgres://me:s3cret@other.example/app"), none, SERVER).unwrap_err();
        assert_eq!(why, "DATABASE_URL: it is for another server; there is no password file /nonexistent/pgpass");
        let found = of_this_machine(Some("postgres://me:s3cret@db.example/app"), none, SERVER).unwrap();
        assert!(!format!("{found:?}").contains("s3cret"));
    }

    #[test]
    fn a_password_file_that_others_can_read_is_ignored() {
        let path = std::env::temp_dir().join(format!("fathom-pgpass-{}", std::process::id()));
        std::fs::write(&path, "*:*:*:me:s3cret\n").unwrap();
        let read = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            of_this_machine(None, &path, SERVER)
        };
        let (open, closed) = (read(0o640), read(0o600));
        std::fs::remove_file(&path).unwrap();
        assert!(open.unwrap_err().contains("open to group or others"));
        assert_eq!(closed.unwrap().user, "me");
    }
}
