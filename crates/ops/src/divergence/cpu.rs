//! The row on the CPU: one pass that measures, one that differentiates; two exponentials for each logit in both.

use super::{Divergence, FullLoss, FullRow, LOG_FLOOR};
use crate::math::{exp_down, log1p, vectorized};
use crate::row;

/// Running sums side by side, and terms that are added up in f32 before they are added to an f64.
const LANES: usize = 16;
const BLOCK: usize = 256;

/// Below this difference of two log-probabilities, polynomials of it replace differences of probabilities.
const NEAR: f32 = 0.5;

/// The row's measures; `student` [V] becomes the gradient of the weighted sum where `gradient` is set, and stays as it
/// is otherwise. The divergence is over the ids that both sides have: `teacher` may be longer or shorter.
///
/// A NaN on either side makes its losses NaN.
pub fn row(
    loss: &FullLoss,
    student: &mut [f32],
    target: u32,
    teacher: &[f32],
    gradient: bool,
) -> FullRow {
    match loss.divergence {
        Divergence::ForwardKl => row_of(ForwardKl, loss, student, target, teacher, gradient),
        Divergence::ReverseKl => row_of(ReverseKl, loss, student, target, teacher, gradient),
        Divergence::Jsd { beta } => row_of(Jsd(beta), loss, student, target, teacher, gradient),
        Divergence::TotalVariation => row_of(Tvd, loss, student, target, teacher, gradient),
    }
}

fn row_of<K: Kind>(
    kind: K,
    loss: &FullLoss,
    student: &mut [f32],
    target: u32,
    teacher: &[f32],
    gradient: bool,
) -> FullRow {
    let shared = student.len().min(teacher.len());
    let teacher = &teacher[..shared];
    let scale = 1.0 / loss.temperature;
    let Hard {
        value: hard,
        shift,
        log_sum,
    } = Hard::new(student, target);
    let mut sides = Sides {
        p: Side::new(teacher, scale),
        q: Side::new(&student[..shared], scale),
        scale: f64::from(scale),
    };
    // Σ q − p is 0. What it is not, the two log Σ are off each other by, which shows where q is almost p.
    sides.q.log_sum += excess(sides, &student[..shared], teacher).ln_1p();
    let plain = row::max(teacher);
    let (sum, weighted) = moments(teacher, plain);
    let agrees = first_of(student, shift) == first_of(teacher, plain);
    // The slope at the likeliest token, from which the others' are measured: a mean that is small beside it keeps its digits.
    let reference = match first_of(&student[..shared], sides.q.shift) {
        Some(at) => kind.terms(sides.at(student[at], teacher[at])).1,
        None => 0.0,
    };
    let (value, mean) = measure(kind, sides, &student[..shared], teacher, reference);
    if gradient {
        let factor = loss.soft_weight * loss.temperature;
        let slope = Slope {
            reference,
            mean: mean as f32,
            factor,
        };
        let at = target as usize;
        let soft = match (student.get(at), teacher.get(at)) {
            (Some(&z), Some(&zt)) => slope.of(kind, sides.at(z, zt)),
            _ => 0.0,
        };
        let hard_factor = f64::from(loss.hard_weight) * (f64::from(shift) - log_sum).exp();
        let hard_factor = if loss.hard_weight > 0.0 {
            hard_factor as f32
        } else {
            0.0
        };
        let (head, rest) = student.split_at_mut(shared);
        differentiate(kind, sides, head, teacher, slope, (hard_factor, shift));
        rest.iter_mut()
            .for_each(|z| *z = hard_factor * exp_down(*z - shift));
        if let Some(own) = student.get_mut(at) {
            // q − 1 of the hard loss, without the subtraction.
            let hard = match loss.hard_weight > 0.0 {
                true => f64::from(loss.hard_weight) * (-hard).exp_m1(),
                false => 0.0,
            };
            *own = (f64::from(soft) + hard) as f32;
        }
    }
    let t = f64::from(loss.temperature);
    FullRow {
        hard,
        soft: t * t * value,
        teacher_entropy: sum.ln() - weighted / sum,
        agrees,
    }
}

/// The cross-entropy of a row.
struct Hard {
    value: f64,
    /// The row's largest logit, and its log Σ exp.
    shift: f32,
    log_sum: f64,
}

impl Hard {
    /// `student` is lent and stays as it is.
    fn new(student: &mut [f32], target: u32) -> Self {
        let shift = row::max(student);
        let Some(slot) = student.get_mut(target as usize) else {
            let (value, log_sum) = (f64::NAN, f64::NAN);
            return Self {
                value,
                shift,
                log_sum,
            };
        };
        // Others apart: log Σ − z is log(1 + Σ others / own) without the difference.
        let target_logit = std::mem::replace(slot, f32::NEG_INFINITY);
        let others = row::sum_exp(student, shift, 1.0);
        student[target as usize] = target_logit;
        let own = f64::from(target_logit - shift);
        let odds = others / own.exp();
        let value = match odds.is_finite() {
            true => odds.ln_1p(),
            false => (others + own.exp()).ln() - own,
        };
        let log_sum = f64::from(shift) + (others + own.exp()).ln();
        Self {
            value,
            shift,
            log_sum,
        }
    }
}

/// One side's softmax: log p = (z − shift)·scale − log_sum.
#[derive(Clone, Copy)]
struct Side {
    shift: f32,
    log_sum: f64,
    inverse: f32,
}

impl Side {
    fn new(logits: &[f32], scale: f32) -> Self {
        let shift = row::max(logits);
        let sum = row::sum_exp(logits, shift, scale);
        Self {
            shift,
            log_sum: sum.ln(),
            inverse: (1.0 / sum) as f32,
        }
    }

    /// Probability and log-probability of a logit.
    #[inline(always)]
    fn at(self, z: f32, scale: f64) -> (f32, f64) {
        // In f64: of two logits that are almost the same far from zero, the difference is what counts.
        let below = (f64::from(z) - f64::from(self.shift)) * scale;
        (exp_down(below as f32) * self.inverse, below - self.log_sum)
    }
}

/// Teacher and student.
#[derive(Clone, Copy)]
struct Sides {
    p: Side,
    q: Side,
    scale: f64,
}

/// One token's probabilities, and log p − log q.
#[derive(Clone, Copy)]
struct Token {
    p: f32,
    q: f32,
    d: f32,
}

impl Sides {
    #[inline(always)]
    fn at(self, student: f32, teacher: f32) -> Token {
        let (p, log_p) = self.p.at(teacher, self.scale);
        let (q, log_q) = self.q.at(student, self.scale);
        // `max` would replace a NaN.
        let log_p = if log_p < LOG_FLOOR { LOG_FLOOR } else { log_p };
        let log_q = if log_q == f64::NEG_INFINITY {
            LOG_FLOOR
        } else {
            log_q
        };
        Token {
            p,
            q,
            d: (log_p - log_q) as f32,
        }
    }
}

impl Token {
    /// q − p.
    #[inline(always)]
    fn excess(self) -> f32 {
        let near = self.p * expm1_near(-self.d);
        if self.d.abs() < NEAR {
            near
        } else {
            self.q - self.p
        }
    }
}

/// One of the divergences.
trait Kind: Copy {
    /// A token's share of the value, and r, with which the gradient is q (r − Σ q r).
    fn terms(self, of: Token) -> (f32, f32);

    /// The derivative by the student's tempered logit.
    #[inline(always)]
    fn slope(self, of: Token, reference: f32, mean: f32) -> f32 {
        of.q * ((self.terms(of).1 - reference) - mean)
    }
}

#[derive(Clone, Copy)]
struct ForwardKl;
#[derive(Clone, Copy)]
struct ReverseKl;
#[derive(Clone, Copy)]
struct Jsd(f32);
#[derive(Clone, Copy)]
struct Tvd;

impl Kind for ForwardKl {
    #[inline(always)]
    fn terms(self, of: Token) -> (f32, f32) {
        let far = of.p * of.d + (of.q - of.p);
        let near = of.p * gap_near(of.d);
        (if of.d.abs() < NEAR { near } else { far }, 0.0)
    }

    #[inline(always)]
    fn slope(self, of: Token, _: f32, _: f32) -> f32 {
        of.excess()
    }
}

impl Kind for ReverseKl {
    #[inline(always)]
    fn terms(self, of: Token) -> (f32, f32) {
        let far = -of.q * of.d + (of.p - of.q);
        let near = of.q * gap_near(-of.d);
        (if of.d.abs() < NEAR { near } else { far }, -of.d)
    }
}

impl Kind for Jsd {
    #[inline(always)]
    fn terms(self, of: Token) -> (f32, f32) {
        let Self(beta) = self;
        let rest = 1.0 - beta;
        let apart = of.d.abs();
        let share = if of.d > 0.0 { rest } else { beta };
        let below = if apart < NEAR {
            expm1_near(-apart)
        } else {
            exp_down(-apart) - 1.0
        };
        // log m less the larger side, and from it the other.
        let over_large = log1p(share * below);
        let over_small = over_large + apart;
        let (over_p, over_q) = if of.d > 0.0 {
            (over_large, over_small)
        } else {
            (over_small, over_large)
        };
        let excess = of.excess();
        let side = |mass: f32, over: f32, missing: f32| {
            let near = mass * gap_near(-over);
            if over.abs() < NEAR {
                near
            } else {
                missing - mass * over
            }
        };
        let value =
            beta * side(of.p, over_p, rest * excess) + rest * side(of.q, over_q, -beta * excess);
        (value, -rest * over_q)
    }
}

impl Kind for Tvd {
    #[inline(always)]
    fn terms(self, of: Token) -> (f32, f32) {
        let r = if of.d > 0.0 { -0.5 } else { 0.5 };
        (0.5 * of.excess().abs(), if of.d == 0.0 { 0.0 } else { r })
    }
}

/// e^x − 1 for |x| < [`NEAR`].
#[inline(always)]
fn expm1_near(x: f32) -> f32 {
    let mut p = 1.984_127e-4;
    p = p * x + 1.388_888_9e-3;
    p = p * x + 8.333_334e-3;
    p = p * x + 4.166_666_8e-2;
    p = p * x + 0.166_666_67;
    p = p * x + 0.5;
    p * x * x + x
}

/// e^−x − 1 + x for |x| < [`NEAR`], never negative.
#[inline(always)]
fn gap_near(x: f32) -> f32 {
    let mut p = -1.984_127e-4;
    p = p * x + 1.388_888_9e-3;
    p = p * x - 8.333_334e-3;
    p = p * x + 4.166_666_8e-2;
    p = p * x - 0.166_666_67;
    p = p * x + 0.5;
    p * x * x
}

vectorized! {
    /// Σ q − p.
    fn excess(sides: Sides, student: &[f32], teacher: &[f32]) -> f64 {
        sum_tokens(sides, student, teacher, |token| [token.excess()])[0]
    }
}

vectorized! {
    /// Σ of a row's shares of the value, and Σ q (r − reference).
    fn measure<K: Kind>(kind: K, sides: Sides, student: &[f32], teacher: &[f32], reference: f32) -> (f64, f64) {
        let [value, mean] = sum_tokens(sides, student, teacher, |token| {
            let (value, r) = kind.terms(token);
            [value, token.q * (r - reference)]
        });
        (value, mean)
    }
}

#[inline(always)]
fn sum_tokens<const N: usize>(
    sides: Sides,
    student: &[f32],
    teacher: &[f32],
    terms: impl Fn(Token) -> [f32; N],
) -> [f64; N] {
    let mut sums = [0.0; N];
    for (student, teacher) in student.chunks(BLOCK).zip(teacher.chunks(BLOCK)) {
        let mut lanes = [[0f32; LANES]; N];
        let (z, z_rest) = student.as_chunks::<LANES>();
        let (zt, zt_rest) = teacher.as_chunks::<LANES>();
        for (z, zt) in z.iter().zip(zt) {
            for lane in 0..LANES {
                let terms = terms(sides.at(z[lane], zt[lane]));
                for n in 0..N {
                    lanes[n][lane] += terms[n];
                }
            }
        }
        for (&z, &zt) in z_rest.iter().zip(zt_rest) {
            let terms = terms(sides.at(z, zt));
            for n in 0..N {
                lanes[n][0] += terms[n];
            }
        }
        for (sum, lanes) in sums.iter_mut().zip(lanes) {
            *sum += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
    }
    sums
}

/// What the gradient is made with.
#[derive(Clone, Copy)]
struct Slope {
    reference: f32,
    /// Σ q (r − reference).
    mean: f32,
    /// Weight · T.
    factor: f32,
}

impl Slope {
    #[inline(always)]
    fn of<K: Kind>(self, kind: K, token: Token) -> f32 {
        self.factor * kind.slope(token, self.reference, self.mean)
    }
}

vectorized! {
    /// student ← the gradient, that of the hard loss included: factor · e^(z − shift).
    fn differentiate<K: Kind>(kind: K, sides: Sides, student: &mut [f32], teacher: &[f32], slope: Slope, hard: (f32, f32)) -> () {
        let (factor, shift) = hard;
        if factor == 0.0 {
            for (z, &zt) in student.iter_mut().zip(teacher) {
                *z = slope.of(kind, sides.at(*z, zt));
            }
            return;
        }
        for (z, &zt) in student.iter_mut().zip(teacher) {
            *z = slope.of(kind, sides.at(*z, zt)) + factor * exp_down(*z - shift);
        }
    }
}

vectorized! {
    /// Σ e^(z − shift), and Σ e^(z − shift) (z − shift).
    fn moments(logits: &[f32], shift: f32) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for block in logits.chunks(BLOCK) {
            let (mut masses, mut weighted) = ([0f32; LANES], [0f32; LANES]);
            for chunk in block.chunks(LANES) {
                for ((mass, weighted), z) in masses.iter_mut().zip(&mut weighted).zip(chunk) {
                    let term = moment(z - shift);
                    *mass += term.0;
                    *weighted += term.1;
                }
            }
            sums.0 += masses.iter().map(|&sum| f64::from(sum)).sum::<f64>();
            sums.1 += weighted.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
        sums
    }
}

/// e^x and x·e^x for x ≤ 0; 0 where there is no mass.
#[inline(always)]
fn moment(x: f32) -> (f32, f32) {
    let mass = exp_down(x);
    (mass, if mass == 0.0 { 0.0 } else { mass * x })
}

/// The first that is as large as `most`.
fn first_of(row: &[f32], most: f32) -> Option<usize> {
    row.iter().position(|&x| x == most)
}
