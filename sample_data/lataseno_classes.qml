<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <colorPalette>
        <paletteEntry value="1" color="#228833" alpha="255" label="forest" />
        <paletteEntry value="2" color="#ccbb44" alpha="255" label="open land" />
        <paletteEntry value="3" color="#aa3377" alpha="255" label="wetland" />
        <paletteEntry value="4" color="#4477aa" alpha="255" label="water" />
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
