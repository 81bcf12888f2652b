/* Names in a dataset file; dataset.h says what they mean.  Shared by reader and writer only. */
#ifndef TMD_DATA_DATASET_FORMAT_H
#define TMD_DATA_DATASET_FORMAT_H

#define FORMAT_NAME "tmd.dataset"
#define FORMAT_VERSION 1
#define FORMAT_AXIS_ORDER "NCFHW"
#define FORMAT_KIND_LATENTS "latents" /* of the attribute `kind` and of the array */
#define FORMAT_KIND_PIXELS "pixels"
#define FORMAT_TEXT "text"
#define FORMAT_NEGATIVE "negative"
#define FORMAT_ROWS "rows" /* below text and negative */
#define FORMAT_OFFSETS "offsets"
#define FORMAT_PROMPTS "prompts"
#define FORMAT_CHECKSUMS "checksums"

/* Columns of the checksums. */
enum { CHECKSUM_VIDEO, CHECKSUM_TEXT, CHECKSUM_PROMPT, CHECKSUM_COLUMNS };

#endif
