"""Writes a GGUF with every tensor in F32: the same weights, as llama.cpp computes with them unrounded.

    pip install gguf
    python scripts/peers/gguf_f32.py MODEL.gguf MODEL.F32.gguf

A quantised weight is a sum and product of f16 numbers, which f32 holds exactly. So llama.cpp's server with this file has
the weights of the checkpoint that scripts/real/checkpoint.py makes, and only the arithmetic differs.
"""

import argparse

import gguf


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    arguments = parser.parse_args()
    reader = gguf.GGUFReader(arguments.source)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(arguments.target, architecture)
    for field in reader.fields.values():
        # The writer has these itself.
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name == "general.file_type":
            writer.add_file_type(gguf.LlamaFileType.ALL_F32)
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=item)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("float32")
        writer.add_tensor(tensor.name, values, raw_dtype=gguf.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{arguments.target}: {len(reader.tensors)} tensors in F32")


if __name__ == "__main__":
    main()
