//! Failed rows that are to be asked for again.

use super::Journal;
use crate::error::Result;

impl Journal {
    /// The parts of failed rows that have some of these kinds.
    pub fn failed_parts(&self, kinds: &[&str]) -> Result<Vec<u32>> {
        let list: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
        let sql = format!(
            "SELECT DISTINCT part FROM request
             WHERE part IS NOT NULL AND state = 'failed' AND failure IN ({})",
            list.join(", ")
        );
        self.rows(&sql, [], |row| row.get(0))
    }

    /// Marks a part as one that is still to be written.
    pub fn unseal(&mut self, number: u32) -> Result<()> {
        let sql = "UPDATE part SET sealed = 0 WHERE number = ?1";
        self.execute("reopen a part", sql, [number])
    }

    /// Forgets a part, whose rows no part then has.
    pub fn dissolve(&mut self, number: u32) -> Result<()> {
        self.database.write("reopen a part", |transaction| {
            transaction.execute("UPDATE request SET part = NULL WHERE part = ?1", [number])?;
            transaction.execute("DELETE FROM part WHERE number = ?1", [number])?;
            Ok(())
        })
    }

    /// Lets failed rows of a kind, which no part has, wait for an answer again.
    pub fn ask_again(&mut self, kind: &str) -> Result<()> {
        self.database.write("ask again", |transaction| {
            let chosen = "state = 'failed' AND part IS NULL AND failure = ?1";
            transaction.execute(
                &format!(
                    "DELETE FROM completion WHERE (prompt_id, sample_index) IN
                     (SELECT prompt_id, sample_index FROM request WHERE {chosen})"
                ),
                [kind],
            )?;
            transaction.execute(
                &format!(
                    "UPDATE request SET state = 'pending', failure = NULL, error = NULL WHERE {chosen}"
                ),
                [kind],
            )?;
            Ok(())
        })
    }
}
