"""What any inverted dropout must do, as clauses that can be checked on yours.

    from dropout_contract import check

    print(check(my_dropout, framework="torch"))

or, on the command line, `dropout-contract check my_package.layers:MyDropout`.
"""

from dropout_contract.checking import check, parametrize_with_clauses
from dropout_contract.clauses import VERSION as CONTRACT_VERSION
from dropout_contract.report import Report, Result
from dropout_contract.signatures import CannotCheck
from dropout_contract.subjects import Subject, subject

__all__ = [
    "CONTRACT_VERSION",
    "CannotCheck",
    "Report",
    "Result",
    "Subject",
    "check",
    "parametrize_with_clauses",
    "subject",
]
