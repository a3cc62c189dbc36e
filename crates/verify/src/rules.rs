//! When two answers are equal: every rule with an example of each.
//!
//! A pair is tried in this order, and the first that decides decides: two numbers by their exact
//! values; two texts that are the same without spacing and LaTeX's sizes and fonts; units of
//! different dimensions; the letter of a choice; "no solution"; what both mean as mathematics. What
//! cannot be read as mathematics equals only its own text, and that always.
//!
//! Conditions behind a formula ("where k is an integer") are left out where one answer has none.
//! Where both have one with a relation in it, the conditions have to be equal as well.
//!
//! Gold answer and response can be exchanged but for two rules: [`RULES`] marks them.
//!
//! # What is not supported
//! Determinants, piecewise functions (`cases`), sums, integrals, limits, set builders
//! (`\{x \mid x > 3\}`), sets with dots, modular residues, `\overline{AB}` and other geometry,
//! numbers in words (`five`), dates, and bases with letters as digits are compared as text. Units
//! are not converted: of 1 m and 100 cm the numbers are compared, and only units of another
//! dimension differ. Degrees and radians are equal only inside trigonometric functions. Formulas
//! are compared where their variables are positive, so that √(x²) is x. Inequalities are solved
//! where they are linear. Two ratios that may be times of day (3:20 and 6:40) are equal only digit by
//! digit. Powers with a fraction are the real ones where the fraction's denominator is odd.
//! A bare list is a set: `1, 2` does not equal the point `(1, 2)`, in any order. A point that a list
//! says twice counts once; a number that it says twice counts twice. A value that is named by a sum
//! (`x + y = 10`) is an equation, and does not equal `10`.

/// A rule with two answers that it makes equal and two that it keeps apart.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub rule: &'static str,
    /// Gold answer and response.
    pub equal: [&'static str; 2],
    pub different: [&'static str; 2],
    /// Whether the two may be exchanged.
    pub symmetric: bool,
}

const fn rule(rule: &'static str, equal: [&'static str; 2], different: [&'static str; 2]) -> Rule {
    Rule {
        rule,
        equal,
        different,
        symmetric: true,
    }
}

/// All rules; a test checks every example.
pub const RULES: [Rule; 43] = [
    rule("leading zeros do not count", ["33", "033"], ["33", "330"]),
    rule(
        "thousands may be separated",
        ["1234567", "1,234,567"],
        ["1234567", "1,234,56"],
    ),
    rule(
        "fractions are exact, in every form",
        ["\\frac43", "1\\frac{1}{3}"],
        ["\\frac43", "\\frac34"],
    ),
    rule("decimals are exact", ["1/2", "0.50"], ["1/2", "0.51"]),
    Rule {
        rule: "a gold decimal of two places or more accepts what rounds to it and is no decimal",
        equal: ["3.14", "\\pi"],
        different: ["0.12", "1/8"],
        symmetric: false,
    },
    rule(
        "digits that repeat are exact",
        ["\\frac{1}{6}", "0.1\\overline{6}"],
        ["\\frac16", "0.1"],
    ),
    rule(
        "per cent is the number, or a hundredth of it",
        ["50\\%", "0.5"],
        ["50\\%", "5"],
    ),
    rule(
        "degrees that are missing on one side do not count",
        ["90^\\circ", "90"],
        ["90^\\circ", "\\frac{\\pi}{2}"],
    ),
    rule(
        "units and currency that are missing on one side do not count",
        ["\\$5", "5\\text{ dollars}"],
        ["5\\text{ million}", "5"],
    ),
    rule(
        "roots are exact",
        ["\\frac{1}{1+\\sqrt2}", "\\sqrt{2}-1"],
        ["4", "4\\sqrt{2}"],
    ),
    rule(
        "nested roots are compared as numbers",
        ["\\sqrt{3-2\\sqrt2}", "\\sqrt2-1"],
        ["\\sqrt{3+2\\sqrt2}", "\\sqrt2-1"],
    ),
    rule(
        "π and e are what they are",
        ["\\frac{\\pi}{2}", "pi/2"],
        ["\\pi^2", "9.8"],
    ),
    rule(
        "logarithms and trigonometry are compared as numbers",
        ["\\log_2 8", "3"],
        ["\\log_3 8", "2"],
    ),
    rule(
        "factorials are exact, however large",
        ["\\frac{6!}{5!}", "6"],
        ["\\frac{1}{2004!}", "\\frac{1}{2006!}"],
    ),
    rule("complex numbers", ["(2+i)^2", "3+4i"], ["3+4i", "3-4i"]),
    rule(
        "polynomials, in any order and form",
        ["(x+1)^2", "1+2x+x^2"],
        ["(x+1)^2", "(y+1)^2"],
    ),
    rule(
        "rational functions",
        ["\\frac{x^2-1}{x-1}", "x+1"],
        ["\\frac{1}{x+1}", "\\frac{1}{x-1}"],
    ),
    rule(
        "formulas at several points",
        ["2\\sin x\\cos x", "\\sin 2x"],
        ["\\sin x", "\\cos x"],
    ),
    rule(
        "sets and bare lists have no order",
        ["\\{1,2\\}", "2, 1"],
        ["1,2", "1,2,3"],
    ),
    rule(
        "tuples have one",
        ["(3,4)", "\\left(3,4\\right)"],
        ["(3,4)", "(4,3)"],
    ),
    rule(
        "parentheses are no braces",
        ["(-2,1)", "(-2, 1)"],
        ["(-2,1)", "\\{-2,1\\}"],
    ),
    rule(
        "± is both values",
        ["1\\pm\\sqrt2", "1+\\sqrt2, 1-\\sqrt2"],
        ["\\pm 3", "3"],
    ),
    rule(
        "inequalities of one variable are intervals",
        ["x>3", "(3,\\infty)"],
        ["x>3", "x\\ge 3"],
    ),
    rule(
        "unions have no order, and are joined",
        ["[0,2]\\cup[1,3]", "[0,3]"],
        ["(0,1)\\cup(1,2)", "(0,2)"],
    ),
    rule(
        "equations are equal up to a factor",
        ["2x+4=6y", "x+2=3y"],
        ["x+2=3y", "x+3y=2"],
    ),
    rule(
        "a name may stand before its value",
        ["x=5", "5"],
        ["x+z=1", "1"],
    ),
    rule(
        "matrices, entry by entry",
        [
            "\\begin{pmatrix}1&\\frac12\\end{pmatrix}",
            "\\begin{bmatrix}1&0.5\\end{bmatrix}",
        ],
        [
            "\\begin{pmatrix}1&2\\end{pmatrix}",
            "\\begin{pmatrix}2&1\\end{pmatrix}",
        ],
    ),
    rule(
        "a column is a vector",
        ["\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"],
        ["\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\{1,2\\}"],
    ),
    rule(
        "a base is no decoration",
        ["52_8", "52_{8}"],
        ["52_8", "52"],
    ),
    rule(
        "words lose their case, and fonts",
        ["\\text{East}", "east"],
        ["\\text{cat}", "act"],
    ),
    rule(
        "a choice is its letter, where it is the whole answer",
        ["\\textbf{(C)}", "\\text{C: the third}"],
        ["C", "\\text{(C) or (D)}"],
    ),
    Rule {
        rule: "a decimal of four significant digits is the exact value that it is rounded from",
        equal: ["\\frac{5}{12}", "0.4167"],
        different: ["\\frac{5}{12}", "0.417"],
        symmetric: false,
    },
    rule(
        "units of another dimension are not the same unit",
        ["4000\\text{ ml}", "4000"],
        ["4000\\text{ ml}", "4000\\text{ km}"],
    ),
    rule(
        "spaces part groups of digits, of every width",
        ["1\\,234\\,567", "1,\\! 234,\\! 567"],
        ["1\\,234", "1,\\,234"],
    ),
    rule(
        "an empty group is nothing",
        ["\\frac{1}{{}2x}", "\\frac{1}{2x}"],
        ["{}2x", "x"],
    ),
    rule(
        "words may name a value",
        ["\\text{Area} = 12", "12"],
        ["\\text{at least } 12", "12"],
    ),
    rule(
        "values with a name each are compared by name, or in order",
        ["AB=4, CD=5", "4, 5"],
        ["AB=4, CD=5", "5, 4"],
    ),
    rule("ratios", ["3:2", "6\\text{ to }4"], ["3:2", "2:3"]),
    rule(
        "odd roots of negative numbers are real, as powers too",
        ["\\sqrt[3]{x-5}", "(x-5)^{1/3}"],
        ["\\sqrt[3]{x-5}", "(x-5)^{2/3}"],
    ),
    rule(
        "sums, products and multiples of matrices are worked out",
        [
            "\\begin{pmatrix}2\\\\4\\end{pmatrix}",
            "2\\begin{pmatrix}1\\\\2\\end{pmatrix}",
        ],
        [
            "\\begin{pmatrix}2\\\\4\\end{pmatrix}",
            "3\\begin{pmatrix}1\\\\2\\end{pmatrix}",
        ],
    ),
    rule(
        "linear inequalities are solved",
        ["x<1", "-x>-1"],
        ["x<1", "-x<-1"],
    ),
    rule(
        "conditions behind a formula do not count where one answer has none",
        ["n=3k", "n=3k\\text{ where }k\\text{ is an integer}"],
        ["y=x\\text{ for }x>0", "y=x\\text{ for }x<0"],
    ),
    rule(
        "there is no solution, in other words",
        ["\\text{no solution}", "\\text{There are no solutions}"],
        ["\\text{no solution}", "\\text{one solution}"],
    ),
];

#[cfg(test)]
mod tests {
    use super::RULES;
    use crate::equivalent;

    #[test]
    fn every_example_is_as_its_rule_says() {
        for rule in RULES {
            let [gold, response] = rule.equal;
            assert!(
                equivalent(gold, response),
                "{}: {gold} and {response}",
                rule.rule
            );
            assert!(
                !rule.symmetric || equivalent(response, gold),
                "{}: {response} and {gold}",
                rule.rule
            );
            let [gold, response] = rule.different;
            assert!(
                !equivalent(gold, response),
                "{}: {gold} and {response}",
                rule.rule
            );
            assert!(
                !equivalent(response, gold) || !rule.symmetric,
                "{}: {response} and {gold}",
                rule.rule
            );
        }
    }
}
