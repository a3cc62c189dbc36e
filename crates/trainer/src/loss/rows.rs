//! The supervised rows of a pass with their losses: what the head is given as a value.

use ops::head_loss::{Factors, Found, RowLoss, Taken};

use super::logits::{LogitLoss, MEASURES};
use super::teacher::{TeacherRow, TeacherRows};

/// The supervised rows of one pass: `targets` (`[S]`) and, where stored, the teacher at each of them.
#[derive(Clone, Copy, Debug)]
pub struct LogitRows<'a> {
    pub loss: LogitLoss,
    pub targets: &'a [u32],
    /// Empty, or one per target.
    pub teacher: &'a TeacherRows,
}

impl LogitRows<'_> {
    fn at(&self, row: usize) -> (u32, Option<TeacherRow<'_>>) {
        (self.targets[row], self.teacher.get(row))
    }
}

impl RowLoss for LogitRows<'_> {
    fn n_measures(&self) -> usize {
        MEASURES.len()
    }

    fn row(&self, row: usize, logits: &mut [f32], online: &[f32], measures: &mut [f64]) {
        let (target, teacher) = self.at(row);
        let parts = match online {
            [] => self.loss.row(logits, target, teacher),
            online => self.loss.full_row(logits, target, online, true),
        };
        measures.copy_from_slice(&parts.to_array());
    }

    fn taken(&self, row: usize) -> Taken<'_> {
        let (target, teacher) = self.at(row);
        Taken {
            ids: teacher.map_or(&[], |teacher| teacher.ids),
            target,
            scale: self.loss.rest_scale(teacher) as f32,
        }
    }

    fn charge(
        &self,
        row: usize,
        found: &Found<'_>,
        gradient: &mut [f32],
        target_gradient: &mut f32,
        measures: &mut [f64],
    ) -> Factors {
        let (target, teacher) = self.at(row);
        let (parts, factors) =
            self.loss
                .charge_found(found, target, teacher, gradient, target_gradient);
        measures.copy_from_slice(&parts.to_array());
        factors
    }
}

/// The same losses where nothing is differentiated: a row's logits stay logits, which is no gradient, so none may be
/// asked of the head.
#[derive(Clone, Copy, Debug)]
pub struct WithoutGradient<'a>(pub LogitRows<'a>);

impl RowLoss for WithoutGradient<'_> {
    fn n_measures(&self) -> usize {
        self.0.n_measures()
    }

    fn row(&self, row: usize, logits: &mut [f32], online: &[f32], measures: &mut [f64]) {
        let (target, teacher) = self.0.at(row);
        let parts = match online {
            [] => self.0.loss.evaluate(logits, target, teacher),
            online => self.0.loss.full_row(logits, target, online, false),
        };
        measures.copy_from_slice(&parts.to_array());
    }

    fn taken(&self, row: usize) -> Taken<'_> {
        self.0.taken(row)
    }

    fn charge(
        &self,
        row: usize,
        found: &Found<'_>,
        gradient: &mut [f32],
        target: &mut f32,
        measures: &mut [f64],
    ) -> Factors {
        self.0.charge(row, found, gradient, target, measures)
    }
}
