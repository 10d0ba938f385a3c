"""What the demo corpus is made of: codes, their wordings, and the sentences around them.

Codes and titles are those of ICD-9-CM. Every other word is invented for this project: no sentence comes from a
patient's record. Wordings avoid the official title, so that looking the title up in a note finds next to nothing.
"""

from __future__ import annotations

from typing import NamedTuple


class DemoCode(NamedTuple):
    """One code of the corpus.

    Attributes:
        code: dotted.
        title: the official long title.
        kind: which sentences it fits: "acute", "chronic", "status", "care", "external" or "procedure".
        train_notes: number of training notes that carry it.
        forms: wordings for every split; the first two are plain names, which denials and family histories use too.
        test_forms: wordings that only test notes have; the first is a plain name.
        sex: "M" or "F" where only such patients have it.
    """

    code: str
    title: str
    kind: str
    train_notes: int
    forms: tuple[str, ...]
    test_forms: tuple[str, ...]
    sex: str = ""


CODES = (
    # Frequent ones.
    DemoCode(
        "401.9",
        "Unspecified essential hypertension",
        "chronic",
        58,
        ("HTN", "high blood pressure", "elevated pressures on lisinopril", "hypertenison"),
        ("longstanding elevated BP", "hypertensive disease"),
    ),
    DemoCode(
        "428.0",
        "Congestive heart failure, unspecified",
        "chronic",
        38,
        ("CHF", "a weak heart with fluid overload", "pump failure with an EF of 25%", "heart failure on Lasix"),
        ("a failing heart", "cardiac decompensation with volume overload"),
    ),
    DemoCode(
        "427.31",
        "Atrial fibrillation",
        "chronic",
        34,
        ("AF", "afib", "afib with RVR", "an irregularly irregular heart rhythm"),
        ("a-fib", "fibrillating atria on telemetry"),
    ),
    DemoCode(
        "250.00",
        "Diabetes mellitus without mention of complication, type II or unspecified type, not stated as uncontrolled",
        "chronic",
        30,
        ("DM2", "adult-onset diabetes", "NIDDM", "high blood sugars on metformin"),
        ("T2DM", "sugar diabetes managed with diet"),
    ),
    DemoCode(
        "414.01",
        "Coronary atherosclerosis of native coronary artery",
        "chronic",
        24,
        ("CAD", "three vessel coronary disease", "narrowed heart arteries"),
        ("ischemic heart disease", "plaque in the LAD and RCA"),
    ),
    DemoCode(
        "584.9",
        "Acute kidney failure, unspecified",
        "acute",
        22,
        ("AKI", "acute renal failure", "a creatinine bump from prerenal azotemia", "new renal insufficiency"),
        ("ARF", "sudden loss of renal function"),
    ),
    DemoCode(
        "272.4",
        "Other and unspecified hyperlipidemia",
        "chronic",
        20,
        ("HLD", "high cholesterol", "dyslipidemia on simvastatin"),
        ("hypercholesterolemia", "raised lipids on a statin"),
    ),
    DemoCode(
        "599.0",
        "Urinary tract infection, site not specified",
        "acute",
        14,
        ("UTI", "infected urine", "dysuria with a positive urine culture"),
        ("a bladder infection", "pyuria with E. coli in the urine"),
    ),
    # The long tail.
    DemoCode(
        "038.9",
        "Unspecified septicemia",
        "acute",
        9,
        ("sepsis", "a bloodstream infection", "septic shock with positive blood cultures"),
        ("blood poisoning", "septic physiology with lactate of 5"),
    ),
    DemoCode(
        "486",
        "Pneumonia, organism unspecified",
        "acute",
        10,
        ("PNA", "a lung infection", "a lobar infiltrate treated with levofloxacin"),
        ("CAP", "a consolidated lung with purulent sputum"),
    ),
    DemoCode(
        "507.0",
        "Pneumonitis due to inhalation of food or vomitus",
        "acute",
        5,
        ("aspiration pneumonia", "aspiration of gastric contents", "infiltrates after aspirating at dinner"),
        ("an aspiration event", "choking on food that went into the lungs"),
    ),
    DemoCode(
        "518.81",
        "Acute respiratory failure",
        "acute",
        8,
        ("hypoxemic resp failure", "severe respiratory distress", "hypercarbia needing BiPAP"),
        ("ventilatory failure", "inability to oxygenate on a nonrebreather"),
    ),
    DemoCode(
        "496",
        "Chronic airway obstruction, not elsewhere classified",
        "chronic",
        10,
        ("COPD", "emphysema", "chronic bronchitis on home inhalers"),
        ("obstructive lung disease", "smoker's lung on home oxygen"),
    ),
    DemoCode(
        "327.23",
        "Obstructive sleep apnea (adult)(pediatric)",
        "chronic",
        6,
        ("OSA", "nighttime apneas", "CPAP for loud snoring with apneic spells"),
        ("sleep disordered breathing", "pauses in breathing while asleep"),
    ),
    DemoCode(
        "530.81",
        "Esophageal reflux",
        "chronic",
        10,
        ("GERD", "acid reflux", "heartburn on omeprazole"),
        ("gastroesophageal reflux disease", "acid regurgitation after meals"),
    ),
    DemoCode(
        "244.9",
        "Unspecified acquired hypothyroidism",
        "chronic",
        9,
        ("an underactive thyroid", "low thyroid hormone", "a high TSH on levothyroxine"),
        ("thyroid deficiency", "a sluggish thyroid on Synthroid"),
    ),
    DemoCode(
        "285.1",
        "Acute posthemorrhagic anemia",
        "acute",
        7,
        ("blood loss anemia", "anemia from bleeding", "a falling hematocrit due to blood loss"),
        ("hemorrhagic anemia", "hemoglobin of 6.4 after bleeding"),
    ),
    DemoCode(
        "276.1",
        "Hyposmolality and/or hyponatremia",
        "acute",
        8,
        ("low sodium", "low serum Na", "a sodium of 121 from SIADH"),
        ("sodium depletion", "hyponatremic dehydration"),
    ),
    DemoCode(
        "276.7",
        "Hyperpotassemia",
        "acute",
        5,
        ("hyperkalemia", "high potassium", "K of 6.8 with peaked T waves"),
        ("elevated serum potassium", "hyperK treated with kayexalate"),
    ),
    DemoCode(
        "287.5",
        "Thrombocytopenia, unspecified",
        "acute",
        6,
        ("low platelets", "a low plt count", "a drop in platelets to 32"),
        ("a shortage of platelets", "platelet count down to 18"),
    ),
    DemoCode(
        "415.19",
        "Other pulmonary embolism and infarction",
        "acute",
        6,
        ("a PE", "a clot in the lung", "filling defects in both pulmonary arteries"),
        ("lung clots", "a saddle embolus on CTA"),
    ),
    DemoCode(
        "453.40",
        "Acute venous embolism and thrombosis of unspecified deep vessels of lower extremity",
        "acute",
        5,
        ("a DVT", "a clot in the leg", "femoral vein thrombus on ultrasound"),
        ("a leg vein clot", "a noncompressible popliteal vein"),
    ),
    DemoCode(
        "434.91",
        "Cerebral artery occlusion, unspecified with cerebral infarction",
        "acute",
        7,
        ("a stroke", "an ischemic CVA", "a left MCA infarct on MRI"),
        ("a brain infarct", "CVA with facial droop and aphasia"),
    ),
    DemoCode(
        "345.90",
        "Epilepsy, unspecified, without mention of intractable epilepsy",
        "chronic",
        4,
        ("a seizure disorder", "recurrent seizures", "convulsions on Keppra"),
        ("epileptic fits", "sz d/o on phenytoin"),
    ),
    DemoCode(
        "332.0",
        "Paralysis agitans",
        "chronic",
        4,
        ("Parkinson's disease", "parkinsonism", "rigidity and resting tremor on Sinemet"),
        ("shaking palsy", "Parkinsons with a shuffling gait"),
    ),
    DemoCode(
        "331.0",
        "Alzheimer's disease",
        "chronic",
        5,
        ("Alzheimer dementia", "senile dementia", "progressive memory loss on donepezil"),
        ("degenerative dementia", "a slowly worsening memory on Aricept"),
    ),
    DemoCode(
        "293.0",
        "Delirium due to conditions classified elsewhere",
        "acute",
        6,
        ("acute confusion", "an acute confusional state", "waxing and waning attention with hallucinations"),
        ("a delirious state", "sundowning with disorientation"),
    ),
    DemoCode(
        "311",
        "Depressive disorder, not elsewhere classified",
        "chronic",
        9,
        ("depression", "low mood", "feeling hopeless on sertraline"),
        ("MDD", "depressed mood with anhedonia"),
    ),
    DemoCode(
        "274.9",
        "Gout, unspecified",
        "chronic",
        5,
        ("gouty arthritis", "podagra", "urate crystals on allopurinol"),
        ("uric acid arthritis", "a crystal-proven flare of the great toe"),
    ),
    DemoCode(
        "715.90",
        "Osteoarthrosis, unspecified whether generalized or localized, site unspecified",
        "chronic",
        6,
        ("OA", "degenerative joint disease", "worn out knees from DJD"),
        ("osteoarthritis", "wear and tear arthritis of the hands"),
    ),
    DemoCode(
        "585.9",
        "Chronic kidney disease, unspecified",
        "chronic",
        9,
        ("CKD", "chronic renal insufficiency", "longstanding poor kidney function with a baseline Cr of 2.4"),
        ("CRI", "long-term reduced GFR"),
    ),
    DemoCode(
        "571.5",
        "Cirrhosis of liver without mention of alcohol",
        "chronic",
        5,
        ("cirrhotic liver disease", "a scarred liver", "hepatic scarring with varices and ascites"),
        ("end stage liver disease", "a shrunken nodular liver"),
    ),
    DemoCode(
        "070.54",
        "Chronic hepatitis C without mention of hepatic coma",
        "chronic",
        4,
        ("HCV", "hep C", "a detectable HCV viral load"),
        ("hepatitis C virus infection", "HCV genotype 1 failed interferon"),
    ),
    DemoCode(
        "042",
        "Human immunodeficiency virus [HIV] disease",
        "chronic",
        4,
        ("AIDS", "HIV infection", "a CD4 count of 90 on HAART"),
        ("HIV positivity", "retroviral disease on antiretrovirals"),
    ),
    DemoCode(
        "008.45",
        "Intestinal infection due to Clostridium difficile",
        "acute",
        6,
        ("C. diff", "C diff colitis", "toxin positive diarrhea on oral vancomycin"),
        ("CDI", "C difficile toxin in the stool"),
    ),
    DemoCode(
        "578.9",
        "Hemorrhage of gastrointestinal tract, unspecified",
        "acute",
        8,
        ("a GI bleed", "melena", "bright red blood per rectum"),
        ("GIB", "black tarry stools"),
    ),
    DemoCode(
        "577.0",
        "Acute pancreatitis",
        "acute",
        5,
        ("an inflamed pancreas", "pancreatic inflammation", "epigastric pain with a lipase of 2400"),
        ("a swollen pancreas", "peripancreatic stranding with high lipase"),
    ),
    DemoCode(
        "682.6",
        "Cellulitis and abscess of leg, except foot",
        "acute",
        5,
        ("a leg skin infection", "LLE cellulitis", "a red warm infected shin"),
        ("an infected calf", "spreading redness and pus over the shin"),
    ),
    DemoCode(
        "707.03",
        "Pressure ulcer, lower back",
        "acute",
        4,
        ("a sacral decub", "a bedsore", "skin breakdown over the sacrum"),
        ("a sacral pressure sore", "a stage III decubitus over the tailbone"),
    ),
    DemoCode(
        "820.8",
        "Closed fracture of unspecified part of neck of femur",
        "acute",
        5,
        ("a broken hip", "a hip fx", "a displaced break of the left femoral neck"),
        ("a hip fracture", "a shortened and externally rotated leg from a broken hip"),
    ),
    DemoCode(
        "291.81",
        "Alcohol withdrawal",
        "acute",
        3,
        ("EtOH w/d", "withdrawal tremors", "the shakes after the last drink, on a CIWA scale"),
        ("detox symptoms", "tremulousness after stopping vodka"),
    ),
    DemoCode(
        "303.91",
        "Other and unspecified alcohol dependence, continuous",
        "chronic",
        5,
        ("alcoholism", "EtOH addiction", "heavy daily drinking"),
        ("a chronic drinking problem", "a pint of whiskey a day"),
    ),
    DemoCode(
        "305.1",
        "Tobacco use disorder",
        "chronic",
        6,
        ("cigarette smoking", "nicotine dependence", "smoking a pack a day"),
        ("active smoking", "current tob abuse"),
    ),
    DemoCode(
        "424.1",
        "Aortic valve disorders",
        "chronic",
        5,
        ("aortic stenosis", "severe AS", "a tight aortic valve with an area of 0.7"),
        ("aortic regurgitation", "a calcified and narrowed aortic valve"),
    ),
    DemoCode(
        "410.71",
        "Subendocardial infarction, initial episode of care",
        "acute",
        6,
        ("an NSTEMI", "a heart attack", "a troponin rise without ST elevation"),
        ("a non-ST elevation MI", "a small MI by enzymes"),
    ),
    DemoCode(
        "162.9",
        "Malignant neoplasm of bronchus and lung, unspecified",
        "chronic",
        4,
        ("lung cancer", "NSCLC", "adenocarcinoma of the right upper lobe"),
        ("lung CA", "a biopsy-proven bronchogenic carcinoma"),
    ),
    DemoCode(
        "V10.46",
        "Personal history of malignant neoplasm of prostate",
        "status",
        3,
        ("remote prostate cancer", "previous prostate ca", "prostate cancer s/p prostatectomy years ago"),
        ("a cured prostate tumor", "prostate CA in remission since radiation"),
        "M",
    ),
    DemoCode(
        "V58.61",
        "Long-term (current) use of anticoagulants",
        "status",
        8,
        ("chronic Coumadin", "lifelong warfarin", "blood thinners at home with INR checks"),
        ("indefinite anticoagulation", "daily warfarin for years"),
    ),
    DemoCode(
        "V45.81",
        "Aortocoronary bypass status",
        "status",
        6,
        ("a prior CABG", "old bypass grafts", "open heart bypass ten years ago"),
        ("previous coronary bypass", "a remote CABG x 4"),
    ),
    DemoCode(
        "V66.7",
        "Encounter for palliative care",
        "care",
        4,
        ("comfort measures only", "hospice care", "CMO with a morphine drip"),
        ("comfort care", "end of life care with symptom control"),
    ),
    DemoCode(
        "E888.9",
        "Unspecified fall",
        "external",
        7,
        ("a mechanical fall", "falling at home", "tripping over a rug", "a slip in the bathroom"),
        ("falling down", "losing balance and landing on the floor"),
    ),
    DemoCode(
        "E812.0",
        "Other motor vehicle traffic accident involving collision with motor vehicle injuring driver of motor vehicle "
        "other than motorcycle",
        "external",
        3,
        ("a car crash", "an MVC", "a head-on collision as restrained driver"),
        ("an auto accident", "being struck by another car while driving"),
    ),
    # Procedures.
    DemoCode(
        "04.07",
        "Other excision or avulsion of cranial and peripheral nerves",
        "procedure",
        4,
        ("a neurectomy", "removal of a nerve tumor", "resection of a schwannoma"),
        ("nerve resection", "cutting out of a painful neuroma"),
    ),
    DemoCode(
        "39.95",
        "Hemodialysis",
        "procedure",
        6,
        ("HD", "dialysis", "renal replacement through a tunneled line"),
        ("HD through a fistula", "treatment on the kidney machine"),
    ),
    DemoCode(
        "99.04",
        "Transfusion of packed cells",
        "procedure",
        8,
        ("a blood transfusion", "pRBCs", "two units of red cells"),
        ("red cell support", "3u PRBC"),
    ),
    DemoCode(
        "96.71",
        "Continuous invasive mechanical ventilation for less than 96 consecutive hours",
        "procedure",
        6,
        ("intubation", "a short time on the vent", "ventilator support for two days"),
        ("a breathing tube", "overnight support by the breathing machine"),
    ),
    DemoCode(
        "45.13",
        "Other endoscopy of small intestine",
        "procedure",
        5,
        ("an EGD", "upper endoscopy", "a scope of the stomach and duodenum"),
        ("upper GI scoping", "esophagogastroduodenoscopy"),
    ),
    DemoCode(
        "36.15",
        "Single internal mammary-coronary artery bypass",
        "procedure",
        3,
        ("CABG with LIMA to LAD", "a LIMA graft", "bypass surgery with the left mammary to the LAD"),
        ("a mammary artery graft", "on-pump revascularization with LIMA"),
    ),
    DemoCode(
        "81.51",
        "Total hip replacement",
        "procedure",
        4,
        ("THA", "hip arthroplasty", "placement of an artificial hip"),
        ("THR", "a new prosthetic hip joint"),
    ),
    DemoCode(
        "51.23",
        "Laparoscopic cholecystectomy",
        "procedure",
        2,
        ("lap chole", "gallbladder removal", "keyhole surgery for gallstones"),
        ("lap CCY", "laparoscopic removal of the gallbladder"),
    ),
)

_ABBREVIATIONS = (
    "HTN, CHF, AF, afib, afib with RVR, a-fib, DM2, NIDDM, T2DM, CAD, AKI, ARF, HLD, UTI, PNA, CAP, COPD, OSA, "
    "GERD, hypoxemic resp failure, hyperK treated with kayexalate, low serum Na, a low plt count, a PE, a DVT, "
    "an ischemic CVA, CVA with facial droop and aphasia, MDD, OA, CKD, worn out knees from DJD, "
    "sz d/o on phenytoin, CRI, HCV, hep C, AIDS, HIV infection, CDI, HIV positivity, C. diff, C diff colitis, "
    "C difficile toxin in the stool, a GI bleed, GIB, LLE cellulitis, a sacral decub, a hip fx, EtOH w/d, "
    "EtOH addiction, current tob abuse, severe AS, an NSTEMI, a non-ST elevation MI, a small MI by enzymes, "
    "NSCLC, lung CA, previous prostate ca, prostate CA in remission since radiation, a prior CABG, "
    "a remote CABG x 4, CMO with a morphine drip, an MVC, HD, HD through a fistula, pRBCs, 3u PRBC, an EGD, "
    "CABG with LIMA to LAD, a LIMA graft, THA, THR, lap chole, lap CCY"
)
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split(", "))
"""Wordings that name the code by an abbreviation."""

MISSPELT = frozenset(("hypertenison",))
"""Wordings that are misspelt wherever they occur."""

UNUSED_TITLES = (
    ("003.1", "Salmonella septicemia", False),
    ("389.00", "Conductive hearing loss, unspecified", False),
    ("V30.00", "Single liveborn, born in hospital, delivered without mention of cesarean section", False),
    ("E950.0", "Suicide and self-inflicted poisoning by analgesics, antipyretics, and antirheumatics", False),
    ("40.3", "Regional lymph node excision", True),
    ("01.24", "Other craniotomy", True),
)
"""Dotted code, title, whether a procedure: rows of the title tables that no admission uses."""

RELATED = (
    ("486", "507.0", "518.81", "96.71", "162.9"),
    ("584.9", "585.9", "39.95", "276.7"),
    ("038.9", "599.0", "682.6"),
    ("415.19", "453.40", "V58.61"),
    ("578.9", "285.1", "99.04", "45.13"),
    ("303.91", "291.81"),
    ("414.01", "410.71", "36.15", "V45.81", "428.0"),
    ("820.8", "81.51", "E888.9", "E812.0"),
    ("571.5", "070.54"),
    ("305.1", "496", "162.9"),
    ("293.0", "331.0"),
    ("427.31", "V58.61"),
    ("518.81", "327.23", "496"),
)
"""Groups within which a note that carries one code does not deny another, lest the denial be doubtful."""

APART = (("36.15", "V45.81"), ("E888.9", "E812.0"))
"""Codes that no note carries together."""

# Slots: {m} a wording, {M} the same with a capital; {he}, {He}, {his}, {His}, {him}, {man}, {sex}, {title}, {age} the
# patient; {cc} the complaint; {n} and {tag} numbers; {date}, {earlier}, {later}, {place} whole de-identification tags;
# the rest vital signs and laboratory values. No sentence ends with ":", since that makes a section header.
ASSERTED = {
    "acute": (
        "In the ED {he} was found to have {m}.",
        "Workup was notable for {m}.",
        "{He} was transferred from {place} for management of {m}.",
        "There was concern for {m}, which was confirmed.",
        "Over the prior {n} days {he} developed {m}.",
        "Evaluation on arrival showed {m}.",
        "{He} was admitted with {m}.",
        "The referring team had already started treatment for {m}.",
    ),
    "chronic": (
        "{He} has known {m}, followed by {his} primary doctor.",
        "{He} has had {m} for {n} years.",
        "Background of {m}.",
        "Of note, {he} carries a diagnosis of {m}.",
        "{His} course over the years has been marked by {m}.",
        "{He} is followed in clinic for {m}.",
    ),
    "status": (
        "Of note is {m}.",
        "{His} background includes {m}.",
        "The record confirms {m}.",
    ),
    "care": (
        "After a family meeting the plan became {m}.",
        "{He} was transitioned to {m}.",
        "{His} proxy chose {m}.",
    ),
    "external": (
        "Symptoms began after {m}.",
        "{He} was brought in by EMS following {m}.",
        "{He} was injured by {m} {n} days ago.",
        "The history is of {m}, witnessed by a neighbor.",
    ),
    "procedure": (
        "{He} required {m} on {date}.",
        "{He} had {m} without complication.",
        "Treatment included {m}.",
        "On hospital day {n} {he} received {m}.",
    ),
}
"""Sentences that assert a code, by kind, for the history of present illness (procedures and care: for the course)."""

COURSE = {
    "acute": (
        "# {M} - improved with treatment during the stay.",
        "The team treated {m} and {he} improved.",
        "Course was complicated by {m}.",
        "# {M} - found on hospital day {n}, managed conservatively.",
        "{M} resolved before discharge.",
    ),
    "chronic": (
        "# {M} - home regimen was continued.",
        "For {m} no changes were made.",
        "# {M} - stable throughout.",
        "{M} was managed as at home.",
    ),
    "status": ("# {M} - noted, nothing further was done.", "In view of {m} the plan was adjusted."),
    "care": ("# Goals of care - {m}.", "{He} leaves with {m} arranged."),
    "external": ("Social work saw {him} after {m}.", "# {M} - no further injuries found."),
    "procedure": ("{M} went well.", "# {M} - tolerated without event."),
}
"""A second mention, in other words, for the hospital course."""

DENIED = {
    "acute": (
        "There was no evidence of {m}.",
        "{M} was ruled out.",
        "Workup was negative for {m}.",
        "No signs of {m} on exam.",
        "Initial worry about {m} was not borne out.",
        "{He} denies {m}.",
    ),
    "chronic": (
        "{He} denies {m}.",
        "{He} has never had {m}.",
        "No history of {m}.",
        "An old chart entry of {m} was an error.",
        "There was no evidence of {m}.",
    ),
    "status": ("No record of {m}.", "{He} denies {m}."),
    "care": ("{M} was discussed and declined.", "The family did not wish for {m}."),
    "external": ("{He} denies {m}.", "No report of {m}."),
    "procedure": (
        "{M} was considered but not performed.",
        "There was no indication for {m}.",
        "{He} declined {m}.",
    ),
}
"""Mentions of codes that the note does not carry."""

FAMILY = (
    "Father with {m}.",
    "Mother had {m}.",
    "Sister with {m}, otherwise noncontributory.",
    "Strong family history of {m}.",
    "Two brothers with {m}.",
    "Maternal grandfather had {m}.",
)
OTHER_PERSON = (
    "{His} spouse is being treated for {m}.",
    "A roommate was recently seen for {m}.",
    "{He} cares for a parent with {m}.",
)
NO_FAMILY_HISTORY = ("Noncontributory.", "Unknown.", "Adopted, not known.", "Reviewed and noncontributory.")

COMPLAINTS = (
    "weakness",
    "abdominal pain",
    "feeling unwell",
    "lightheadedness",
    "fatigue",
    "poor oral intake",
    "fever",
    "cough",
    "nausea and vomiting",
    "chest discomfort",
    "leg swelling",
    "back pain",
    "malaise",
    "difficulty walking",
)
OPENINGS = (
    "The patient is a {age} year old {man} who presents with {cc}.",
    "{age} yo {man} presenting with {cc} for {n} days.",
    "{title} [**Known lastname {tag}**] is a {age}-year-old {man} with {cc}.",
    "This {age} y/o {man} came to [**Hospital{n} {tag}**] because of {cc}.",
    "{age}{sex} sent from {his} PCP Dr. [**Last Name (STitle) {tag}**] with {cc}.",
)
FILLERS = (
    "{He} was in {his} usual state of health until {n} days ago.",
    "{He} lives with family and is independent at baseline.",
    '{He} describes the feeling as "not quite right" and worse in the evening.',
    "Review of systems is otherwise as above.",
    "{He} took acetaminophen at home without relief.",
    "No recent travel and no sick contacts.",
    "In the ED, initial vitals were T {temp} BP {bp} HR {hr} RR {rr} O2 {sat}% RA.",
    "{He} was given IV fluids and sent to the floor.",
    "On the floor {he} was comfortable and asked for dinner.",
    "{He} was last seen in clinic on {earlier}.",
    "An outside film was reviewed with Dr. [**First Name8 (NamePattern2) {tag}**].",
    "The interview was done with an interpreter.",
    "{He} reports sleeping poorly for {n} nights.",
    "Vaccinations are up to date.",
    "{He} had been walking the dog when it started and went home to rest.",
    "The onset was gradual and nothing makes it better.",
    "{His} neighbor called the ambulance.",
    "{He} called the office and was told to come in.",
    "Records from [**Hospital{n} {tag}**] were requested but have not arrived.",
    "{He} had eaten breakfast and taken {his} pills that morning.",
)
COURSE_FILLERS = (
    "{He} was monitored and remained stable.",
    "Physical therapy cleared {him} for discharge.",
    "Diet was advanced as tolerated.",
    "Electrolytes were repleted as needed.",
    "Pain was controlled with acetaminophen.",
    "{He} was seen by the consult service, who agreed with the plan.",
    "{He} was discharged on hospital day {n} in stable condition.",
    "# FEN - regular diet, ambulation, PIV.",
    "Nutrition was consulted and recommended supplements.",
    "The night team was called once for poor sleep and no change was made.",
    "{He} walked the hallway twice a day with the nurses.",
    "The plan was discussed with {him} and the family on {date}.",
    "Lines were removed and {he} was dressed and ready by noon.",
    "Case management arranged services with [**Hospital{n} {tag}**].",
)
SOCIAL = (
    "Lives with spouse in [**Location (un) {tag}**]. Retired teacher.",
    "Lives alone on the second floor. Works part time as a clerk.",
    "Resident of [**Hospital{n} {tag}**] nursing home, walks with a cane.",
    "Former carpenter, two children, enjoys gardening.",
)
EXAM = (
    "T {temp} BP {bp} HR {hr} RR {rr} SpO2 {sat}% RA\nGen: NAD, pleasant. HEENT: MMM. Abd: soft, NT.",
    "VS: {temp} {bp} {hr} {rr} {sat}% on RA\nGeneral: alert, comfortable. Ext: warm, pulses 2+.",
    "Vitals: Tm {temp}, BP {bp}, P {hr}\nNeck supple. Neuro: CN II-XII grossly intact.",
)
LAB_LINES = (
    "{date} 06:{minute}AM WBC-{wbc} RBC-4.1 MCV-9{n} RDW-13.{n}",
    "{date} 06:{minute}AM GLUCOSE-9{n} UREA N-1{n} CHLORIDE-10{n} TOTAL CO2-2{n} ANION GAP-12",
    "{date} 11:{minute}PM CALCIUM-9.{n} PHOSPHATE-3.{n} MAGNESIUM-2.{n}",
    "{date} 04:{minute}PM PT-12.{n} PTT-2{n}.4",
    "CHEST (PA & LAT) {date}: Rotated film. Clips and wires are in their expected position.",
    "ECG {date}: Rate {hr}. Normal axis. No prior tracing for comparison.",
    "CT ABDOMEN {date}: Visualized organs are unremarkable. A small simple cyst needs no follow-up.",
)
MEDICATIONS = (
    "Acetaminophen 325 mg PO Q6H prn",
    "Docusate Sodium 100 mg PO BID",
    "Senna 8.6 mg PO DAILY prn",
    "Multivitamin 1 tab PO DAILY",
    "Cholecalciferol 1000 units PO DAILY",
    "Cyanocobalamin 250 mcg PO DAILY",
    "Melatonin 3 mg PO QHS",
    "Calcium Carbonate 500 mg PO BID",
    "Polyethylene Glycol 17 g PO DAILY prn",
    "Lidocaine 5% patch TD DAILY",
)
SERVICES = ("MEDICINE", "SURGERY", "NEUROLOGY", "CARDIOTHORACIC", "ORTHOPAEDICS")
CONDITIONS = (
    "Mental Status: Clear and coherent. Activity: Ambulatory.",
    "Stable, afebrile, tolerating diet.",
    "Good.",
    "Fair, needs help with transfers.",
)
INSTRUCTIONS = (
    "You were admitted to [**Hospital{n} {tag}**]. Please take your medicines as listed and call with questions.",
    "Please see Dr. [**Last Name (STitle) {tag}**] within {n} weeks, phone [**Telephone/Fax (1) {tag}**].",
    "Weigh yourself every morning and keep a diary. Avoid heavy lifting for {n} weeks.",
    "Bring this letter to your next visit on {later}. If you feel worse, come back to the emergency room.",
)
OTHER_NOTES = (
    ("Nursing", 'Nursing Progress Note, "shift {n}"\nPt resting, VSS, tolerating PO.\nPlan: cont to monitor, {m}?'),
    (
        "Radiology",
        "{date} {minute}:15 AM\nCHEST (PORTABLE AP)\nREASON: evaluate for {m}\nIMPRESSION: No change.",
    ),
    ("Physician ", 'Resident note, ID {tag}\nconsider {m}, see "plan" below'),
    ("ECG", "Rate {hr}.\nTracing of poor quality."),
)
"""Category and text of notes that are no discharge summaries and must not be read."""
