/* What the reader and the writer of safetensors share. Private to this folder. */
#ifndef CS_TENSORS_LAYOUT_H
#define CS_TENSORS_LAYOUT_H

#include "common/tensors/safetensors.h"

#define CS_SAFETENSORS_LENGTH_BYTES 8 /* the header's size, little endian */
#define CS_SAFETENSORS_METADATA_KEY "__metadata__"

/* Sets size_bytes from dtype and shape; CS_INVALID when the rank is too high or the product overflows. */
CS_MUST_CHECK cs_status cs_tensor_measure(cs_tensor_info *info);

#endif
