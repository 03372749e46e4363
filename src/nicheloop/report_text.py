"""Fixed words of the report: what each status means, what may be said, and what the data cannot show."""

from __future__ import annotations

STATUS_WORDS: dict[str, str] = {
    # general
    "ok": "The stage gave an answer.",
    "tested": "Both genes were measurable and the test was made.",
    "assessable": "All parts of the question could be measured.",
    "failed": "The stage stopped with an error; its log says why.",
    "not_run": "The stage left no table for this sample; it was not run, or it stopped before writing.",
    "no_rows": "The table is empty: nothing was left to be assessed.",
    "unreadable": "The input files could not be read; nothing of this sample is in the results.",
    "no_cells": "No cell was left to work with.",
    "no_cells_kept": "No barcode passed quality control.",
    "no_genes": "None of the features could be recognised as a human gene.",
    "no_counts": "The matrix holds normalised values (such as TPM), not counts; what rests on counting noise "
    "cannot be computed.",
    "not_counts": "The matrix holds normalised values (such as TPM), not counts.",
    "too_few_cells": "Fewer cells of the type than the smallest number with which a fraction can be seen.",
    "too_few_genes": "Too few genes of the set are in the matrix.",
    "too_few_patients": "Fewer patients than a statement about the cohort needs.",
    "not_assessable": "The data do not allow an answer; the reason is given beside it.",
    "undetermined": "The evidence lies between the two cuts; no call is made.",
    "upstream_not_ok": "An earlier stage gave no answer for this sample, and this stage needs it.",
    "upstream": "An earlier stage gave no answer for this sample, and this stage needs it.",
    "gene_absent_from_reference": "The gene is not among the features of this data set (for CD24 the rule with "
    "GRCh37 and GENCODE v19 references): a zero there is not a measurement.",
    "gene_not_measured": "The gene is not in this matrix: a zero there is not a measurement.",
    "absent from reference": "The gene is not among the features of this data set: a zero there is not a measurement.",
    "few_features": "Few features of the input could be recognised; the sample was read with what there is.",
    "no_counts_found": "No matrix of counts was found among the input files.",
    "not_human_genes": "Too few features could be recognised as human genes.",
    "negative_values": "The matrix holds negative values (scaled data); nothing that rests on expression can be "
    "computed.",
    "no_samples": "No sample was left that could be used.",
    "not_measurable": "RNA cannot answer this question; what was seen is given beside it as a guard.",
    # quality control and maps
    "no_variable_genes": "No gene varies beyond noise; there is nothing to embed.",
    "too_few_cells_doublets": "Too few barcodes to simulate doublets from; doublets were not looked for.",
    "doublets_not_assessed": "Doublets could not be looked for in this sample.",
    "one_sample": "There is only one sample; nothing is integrated.",
    # annotation
    "low_evidence": "No type has enough marker evidence in the cell; it stays unresolved.",
    "two_lineages": "The cell shows markers of two lineages (often a doublet); it stays unresolved.",
    "ambient": "The evidence is no more than ambient RNA; the cell stays unresolved.",
    "from_input": "The type was taken from the input.",
    "label_not_understood": "The annotation of the input names no known type; the computed type is used.",
    # ambient
    "too_few_marker_counts": "Too few counts of the marker genes to estimate contamination.",
    "ambient_not_estimated": "The contamination by ambient RNA could not be estimated in this sample.",
    "contamination_not_estimated": "The contamination by ambient RNA could not be estimated; nothing is subtracted.",
    "gene_absent": "The marker genes are not in this matrix.",
    "no_makers": "No cell type that makes the marker genes is present, so nothing of it can float in the ambient RNA.",
    "too_few_umi": "Too few counts for an estimate.",
    "not_primary_tumour": "No primary tumour sample: a lymph node or metastasis does not speak for the patient.",
    "hidden_by_ambient": "Ambient RNA of this sample alone gives nearly as much of the gene as the high state, so low "
    "and high cells cannot be told apart.",
    # malignancy
    "no_reference_cells": "No sample has normal cells that could be pooled as a reference.",
    "same_sample": "Reference cells come from the same sample: the first rung of the reference ladder.",
    "few_reference_cells": "Only a few dozen reference cells of the same sample: usable, with less certainty.",
    "reference_pooled": "Reference cells were pooled from other samples of the same chemistry.",
    "pooled_same_chemistry": "Reference cells were pooled from other samples of the same chemistry.",
    "reference_same_chemistry": "Reference cells were pooled from other samples of the same chemistry.",
    "reference_other_chemistry": "Reference cells come from another chemistry, with normal epithelium added: the "
    "weakest rung.",
    "insufficient_reference_cells": "Too few normal cells to compare with, and no pooled reference in the cohort.",
    "no_null_cells": "A pooled reference exists, but the sample has too few normal cells of its own to set the cuts; "
    "epithelial cells stay unassigned. If the cells were sorted as tumour cells, write 'assumed' in the sheet.",
    "assumed_by_user": "The sample sheet declares these cells malignant (sorted tumour cells or a cell line).",
    "too_few_epithelial_cells": "Too few epithelial cells: malignant and normal cells cannot be told apart.",
    "too_few_epithelial": "Too few epithelial cells: malignant and normal cells cannot be told apart.",
    "no_epithelial_cells": "The sample holds no epithelial cell, so no cell can be called malignant.",
    "no_epithelium": "The sample holds no epithelial cell, so no cell can be called malignant.",
    "not_epithelial": "Only epithelial cells are called.",
    "no_cna_signal": "No copy-number signal stands out: a near-diploid tumour or normal tissue; no cell is called "
    "malignant.",
    "near_diploid": "No copy-number signal stands out from the reference; such a tumour cannot be called from RNA.",
    "not_callable": "Malignant and normal epithelium do not separate by copy number.",
    "weak_evidence": "The epithelium follows chromosome arms no more than real normal epithelium sometimes does; no "
    "cell is called. A tumour with few changes and normal tissue both look like this.",
    "caf_control_failed": "Most fibroblasts, the negative control, look malignant: the reference cells or the "
    "annotation are at fault, so no cell is called.",
    "no_normal_baseline": "Malignant cells were compared with stroma and lymphocytes alone: the sample shows no normal "
    "epithelium of its own and the cohort has none. Normal epithelial cells, if there are any, may pass for malignant.",
    "caf_flagged": "More fibroblasts than allowed look malignant; the calls of this sample are not to be trusted.",
    "caf_called_malignant": "More fibroblasts than allowed look malignant; the calls of this sample are not to be "
    "trusted.",
    "discordant": "The two copy-number measures disagree; the cell stays unassigned.",
    "metrics_disagree": "The two copy-number measures disagree; the cell stays unassigned.",
    "unassigned": "The cell is epithelial but its copy-number signal decides neither way.",
    # cancer stem cells
    "not_malignant": "Cancer stem cells are looked for among malignant cells only.",
    "no_malignant_cells": "No cell was called malignant.",
    "no_malignant": "No cell was called malignant.",
    "too_few_malignant": "Fewer malignant cells than a fraction with a useful interval needs.",
    "too_few_malignant_cells": "Fewer malignant cells than a fraction with a useful interval needs.",
    "too_few_informative": "Too few malignant cells are sequenced deeply enough: a CD24-high cell of that depth "
    "would often show no CD24, so a zero is not 'low'.",
    "too_few_informative_cells": "Too few malignant cells are sequenced deeply enough: a CD24-high cell of that "
    "depth would often show no CD24, so a zero is not 'low'.",
    "low_depth": "Too few malignant cells are sequenced deeply enough for a zero to mean 'low'.",
    "not_informative_depth": "Too few malignant cells are sequenced deeply enough: a high cell of that depth "
    "would often show no count, so a zero is not 'low'.",
    "one_component": "Expression does not fall into a high and a low state; only the continuous rates are given.",
    "one_state": "Expression does not fall into a high and a low state; only the continuous rates are given.",
    "not_bimodal": "One state explains the counts of this tumour (or of its whole chemistry) as well as two: no "
    "fraction is given; the continuous rate is in the reason.",
    "rates_not_estimated": "The rates of the high and the low state could not be estimated for this chemistry.",
    "states_too_close": "The high and the low state lie too close together to be told apart.",
    "normal_tissue": "Normal tissue: it never speaks for a tumour.",
    "marker_not_detected": "CD44 or CD24 is seen in no malignant cell, so no gene is like it.",
    "too_few_matched_genes": "Too few genes are like CD44 and CD24 to make the pairs of the null.",
    "too_few_state_cells": "Too few cells are in the state, or not in it, for a mean of a read-out.",
    "state_not_assessable": "No malignant cell of this sample has a call of this state.",
    "not_detected": "No cell compared shows a gene of the read-out.",
    "no_covariate": "The covariate is not measurable, is the same in all cells, or is the read-out itself.",
    "state_not_separable": "What should be adjusted for all but determines the state: nothing is left to compare.",
    "pten_not_measurable": "Neither the expression of PTEN nor the copy number of 10q can be read.",
    # macrophages
    "foreign_rna": "The cell holds RNA of another cell type, as a doublet does: it gets no class.",
    "no_myeloid_cells": "The sample holds no myeloid cell.",
    "no_myeloid": "The sample holds no myeloid cell.",
    "no_macrophages": "The sample holds no macrophage.",
    "too_few_macrophages": "Fewer macrophages than a class can be given for.",
    "too_few_myeloid": "Fewer myeloid cells than a score needs.",
    "not_macrophage": "M1 and M2 are scored in macrophages only.",
    "not_a_macrophage": "M1 and M2 are scored in macrophages only.",
    "transitional": "Between monocyte and macrophage; neither class is given.",
    "axes_not_measurable": "Too few genes of the M1 or M2 set are in the matrix.",
    "class_not_measurable": "Too few genes are in the matrix to tell monocytes from macrophages.",
    "set_not_measurable": "Too few genes of the set are in the matrix.",
    "sets_not_measurable": "Too few genes of the M1 or M2 set are in the matrix.",
    # crosstalk and loop
    "ligand_not_detected": "The ligand was not seen above the detection floor in the senders; the upper bound "
    "says how rare it may be.",
    "receptor_not_detected": "A receptor subunit was not seen above the detection floor in the receivers; the "
    "upper bound says how rare it may be.",
    "platelet_contamination": "The ligand's counts come with platelet genes: platelet debris, not a sending cell.",
    "beyond_ambient": "There are more counts than ambient RNA would leave.",
    "ambient_not_exceeded": "The counts are no more than ambient RNA would leave.",
    "too_few_senders": "Fewer sender cells than the test needs.",
    "too_few_csc": "Fewer CSC-high cells than a contrast needs.",
    "too_few_csc_high": "Fewer CSC-high cells than a contrast needs.",
    "no_csc_contrast": "There are no two groups of malignant cells to compare: too few are CSC-high or CSC-low.",
    "no_strata": "No clone and depth stratum holds both CSC-high and CSC-low cells.",
    "csc_not_assessable": "No malignant cell has a CSC state, so CSC-high and CSC-low cells cannot be compared.",
    "aldh1a3_not_assessable": "No malignant cell has an ALDH1A3 state, so high and low cells cannot be compared.",
    "stress_differs": "CSC-high and other malignant cells differ in dissociation stress, which moves the read-out too.",
    "no_common_stratum": "No clone and depth stratum holds both CSC-high and CSC-low cells.",
    "no_readout": "RNA has no read-out of this axis that does not share genes with the question.",
    "readout_not_measurable": "Too few genes of the read-out are in this matrix.",
    "no_pair": "There is no pair of cell types in which this arm could be looked at.",
    "no_sender": "No cell type that could send is present.",
    "no_receiver": "No cell type that could receive is present.",
    "guard_only": "The gene's RNA cannot answer the question; the measurement is shown as a guard only.",
    "ligand_only": "Only the ligand can be measured; the receiving cells or the receptor are not seen in this "
    "kind of data.",
    "measured": "The level was measured.",
    "too_few_decoys": "Too few expressed pairs without a recorded interaction could be tested for a share.",
    "too_few_types": "Fewer than two cell types with enough cells: there is nothing to compare.",
    "single_type": "Only one cell type has enough cells: every permutation of labels is the observed one.",
    "below_threshold": "A gene of the pair is seen in too few cells of its type.",
    "no_resource": "No ligand-receptor resource was given, so nothing was screened.",
    "not_asked": "This part of the question was not asked of the sample.",
    "not_present": "At least one arm was measured and does not stand out from its null.",
    # enrichment
    "too_few_states": "Too few patients have enough cells on both sides of the contrast.",
    "no_pseudobulk": "No sample has enough cells on both sides of the contrast.",
    "no_contrast": "No patient has enough cells on both sides of the contrast.",
    "no_set": "No gene set has enough genes in the ranking.",
    "no_ranking": "There is no ranked list to test.",
}

ARM_WORDS = {"a": "forward", "b": "response", "c": "return"}

# A few words for lists and tables, where a name with spaces for underscores would not read well.
SHORT_WORDS = {
    "no_null_cells": "no normal cells to set cuts",
    "tested": "tested",
    "ambient_not_exceeded": "not above ambient RNA",
    "no_counts": "no counts in the input",
    "not_informative_depth": "too shallow for a zero to mean low",
    "low_depth": "too shallow for a zero to mean low",
    "csc_not_assessable": "no malignant cell with a CSC state",
    "aldh1a3_not_assessable": "no malignant cell with an ALDH1A3 state",
    "no_readout": "no read-out in RNA",
    "not_measurable": "not measurable in RNA",
    "readout_not_measurable": "read-out not measurable",
    "not_bimodal": "no high and low state to tell apart",
    "stress_differs": "stress differs between CSC-high and CSC-low cells and moves the read-out",
    "no_common_stratum": "no clone and depth with both CSC-high and CSC-low cells",
    "too_few_csc": "too few CSC-high cells",
    "too_few_malignant": "too few malignant cells",
    "not_callable": "no copy-number separation",
    "weak_evidence": "copy-number evidence too weak",
    "caf_control_failed": "CAF control failed",
    "no_normal_baseline": "no normal epithelium to compare with",
    "caf_flagged": "CAFs look malignant",
    "metrics_disagree": "copy-number measures disagree",
    "pooled_same_chemistry": "pooled, same chemistry",
    "reference_other_chemistry": "another chemistry",
    "not_run": "not run",
    "failed": "failed",
}


def short_words(status: str) -> str:
    """A status in a few words: ``arm_a_too_few_cells`` is 'arm A: too few cells'."""
    if status in SHORT_WORDS:
        return SHORT_WORDS[status]
    if status[:4] == "arm_" and status[4:6] in ("a_", "b_", "c_"):
        return f"arm {status[4].upper()}: {short_words(status[6:])}"
    if status != "gene_absent_from_reference" and status.endswith("_absent_from_reference"):
        return f"{status.removesuffix('_absent_from_reference').upper()} absent from reference"
    if ":" in status:
        return ": ".join(short_words(part.strip()) for part in status.split(":"))
    return status.replace("_", " ")


# Lower end of a band of confidence -> share of labelled cells that were right in it; docs/annotate.md says where from.
CALIBRATION = ((0.0, 0.50), (0.5, 0.53), (0.7, 0.61), (0.9, 0.92), (0.99, 0.989), (0.999, 0.997))
CALIBRATION_CELLS = 9387

LIMITATIONS = (
    "Everything here is seen in RNA of cells taken at one time. RNA does not show secreted protein, soluble IL6 "
    "receptor, exosomes, nanotubes between cells, cell contact or the direction of a cause. The report therefore "
    "says 'consistent with', and "
    "never that one thing drives another.",
    "The patient is the unit of every test between tumours. Cells are not independent; p-values within a sample say "
    "something about that sample only, and z grows with the number of cells, so z is never compared between patients.",
    "CD24 = 0 is not 'CD24-negative'. The fraction comes from a depth-aware joint model of CD44 and CD24; in shallow "
    "data it is NA. RNA is not surface protein: CD44 isoforms and CD24 glycosylation are invisible here.",
    "CD44+/CD24- is also a marker of basal and mesenchymal subtypes; only the contrast within a tumour bears on a "
    "stem-cell state.",
    "ALDH1A3-high is an RNA state. It is not ALDEFLUOR activity, and normal luminal progenitors express ALDH1A3 too: "
    "the luminal-progenitor-adjusted fraction stands beside it.",
    "CD44/CD24 and ALDH1A3 are two states and are never averaged into one 'stemness'.",
    "M1 and M2 are two axes, not two kinds of cell, and a ratio of them is not given. Monocytes are set apart first.",
    "Malignant cells are called from inferred copy number. A near-diploid tumour may not be callable; the "
    "false-positive rate is that of held-out reference cells.",
    "Neutrophils and platelets are lost or turn up as debris in droplet data: CXCR1 and CXCR2 receivers are mostly "
    "missing, and PPBP (CXCL7) RNA marks platelets. Mature CXCL7 arises by proteolysis, which RNA does not measure.",
    "Dissociation stress switches on NF-kB and STAT3 target genes; arm B is therefore given with adjustment for "
    "stress, interferon and library size.",
    "Of one patient no more is said than 'all three arms present', 'not present' or 'not assessable': three arms "
    "that each belong to a cell type would be present without any loop. 'Consistent with a loop' is said of a cohort "
    "only.",
    "Maps (UMAP) are pictures for orientation. Distances and densities on them are not evidence; no number in this "
    "report comes from one.",
    "Gene permutation in enrichment ranks gene sets; it is not a test between patients.",
)

METHOD_NOTES = {
    "qc": "Barcodes are filtered per sample by median and scaled MAD, kept between a floor and a cap; doublets by "
    "simulation.",
    "embed": "Variable genes, principal components, integration, neighbours, Leiden clusters and a map; used for "
    "clusters and pictures, never as values for a score or test.",
    "scoring": "Gene sets are scored against the exact limit of drawing expression- and detection-matched genes.",
    "annotate": "Types need positive markers in the cell and its nearest cells; a cell without enough evidence stays "
    "unresolved.",
    "ambient": "Ambient RNA is estimated from genes that a compartment cannot make.",
    "malignancy": "Copy number is inferred in sliding windows against normal cells of the sample (or pooled ones, "
    "by rungs). Malignant cells exceed a cut at which held-out reference cells are rarely called.",
    "csc": "CD44 and CD24 share a gamma-Poisson model with a high and a low state each; four joint weights are "
    "fitted per sample. Intervals carry the uncertainty of the rates. ALDH1A3 has the same model for one gene.",
    "tam": "Monocytes are split off; macrophages are scored on the M1 and M2 axes without secreted or circular genes.",
    "crosstalk": "Strength is the geometric mean of ambient-corrected ligand and limiting receptor subunit; p is "
    "the largest of three (permuted labels, expression-matched pairs, pairs without a recorded interaction); "
    "Benjamini-Hochberg over the rows that could have been tested in a sample.",
    "loop": "Arm A: niche to malignant; arm B: response of CSC-high against CSC-low cells within clone and depth; "
    "arm C: return to the niche. The patient's p is the largest of the three; an arm that cannot be measured makes "
    "the answer NA, not zero.",
    "enrich": "Counts are summed per patient and state; states are contrasted within patients; the ranking is "
    "tested by gseapy's prerank.",
}


def explain(status: str) -> str:
    """Plain words for a status; names made from others (``unknown_<column>``, ``arm_a_<status>``) are taken apart."""
    if status in STATUS_WORDS:
        return STATUS_WORDS[status]
    if status.endswith("_absent_from_reference"):
        gene = status.removesuffix("_absent_from_reference").upper()
        return f"{gene} is not among the features of this data set: a zero there is not a measurement."
    if status.startswith("unknown_"):
        column = status.removeprefix("unknown_").replace("_", " ")
        return f"The sample sheet does not say the {column}; what needs it has no answer."
    for letter, name in ARM_WORDS.items():
        for prefix in (f"arm_{letter}_", f"{letter}_"):
            if status.startswith(prefix):
                rest = status.removeprefix(prefix)
                why = "" if rest == "not_assessable" else explain(rest)
                return f"The {name} arm ({letter.upper()}) could not be measured. {why}".strip()
    if ":" in status:
        head, _, tail = status.partition(":")
        return f"{explain(head.strip())} {explain(tail.strip())}"
    return f"{status.replace('_', ' ').capitalize()} (see the reason beside it)."


def explained(status: str) -> bool:
    """Whether a status has words of its own."""
    return not explain(status).endswith("(see the reason beside it).")
