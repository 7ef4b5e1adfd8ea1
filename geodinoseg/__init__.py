"""geodinoseg: from a large scene to a land-cover map, with DINOv2.

The way of the data:

    path -> Scene -> tile rows (each source block decoded once) -> tile batches on the device
         -> Segmentor: class probabilities -> Stitcher -> class rows -> ClassRaster (COG)
         -> coverage polygons -> GPKG / Shapefile / GeoParquet / FlatGeobuf / GeoJSON

Imports go down only: cli; batch, cluster, training; segmentation, evaluation; labels, polygons,
plots; rasters, model; qgis, files; windows, legend, errors. Public names are listed in
`__init__.pyi`; a name is imported when it is used, so `import geodinoseg` loads no torch.

    import geodinoseg as gds
    gds.train_model("ortho.tif", "fields.gpkg", "farmland.model")
    raster = gds.segment_scene("ortho.tif", "farmland.model", "landcover.tif", confidence=True)
    gds.write_polygons(raster, "landcover.gpkg")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
